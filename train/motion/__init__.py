"""The motion model: `python -m train.motion`."""
