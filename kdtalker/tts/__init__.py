"""Text to samples."""
