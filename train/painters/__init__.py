"""Train the networks that paint mouth and eyelids: `python -m train.mesh`."""
