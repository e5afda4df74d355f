"""Train the motion model: `python -m train.motion`."""
