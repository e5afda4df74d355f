"""Renderers: a source and motion to frames."""
