"""LivePortrait's networks (arXiv 2407.03168), with the parameter names of the published files."""
