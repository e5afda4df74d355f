"""Thin doors: command line and web service."""
