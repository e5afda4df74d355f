"""LivePortrait's networks, laid out as in the published files."""
