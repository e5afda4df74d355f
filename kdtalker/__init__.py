"""One portrait and a voice become a talking film."""

__version__ = "0.1.0"
