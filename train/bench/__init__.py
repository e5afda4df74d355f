"""Measure speed and memory: `python -m train.bench`."""
