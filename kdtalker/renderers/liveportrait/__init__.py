"""LivePortrait engine (arXiv 2407.03168): networks with the parameter names of the published files, and a renderer."""
