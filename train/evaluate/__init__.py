"""Measure films and models: `python -m train.evaluate`."""
