"""Animate a source image by warping it with a face mesh, on the CPU in real time."""
