"""Numerically equivalent, faster forms of warping module and generator for inference."""
