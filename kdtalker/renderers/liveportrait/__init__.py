"""The published engine: LivePortrait's networks (arXiv 2407.03168), key for key, and the renderer over them."""
