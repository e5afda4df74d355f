"""Draw the inside of the mouth."""
