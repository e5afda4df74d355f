"""The mesh engine: a face mesh that warps the source image."""
