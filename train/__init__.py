"""Trainers and measurements, run from a checkout: `python -m train.NAME`."""
