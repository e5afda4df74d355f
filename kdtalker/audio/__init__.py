"""Samples to features at 25 frames a second, and prosody."""
