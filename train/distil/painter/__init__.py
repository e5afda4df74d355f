"""Distil the networks that paint a face into smaller ones."""
