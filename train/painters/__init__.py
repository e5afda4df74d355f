"""Train the network that paints eyelids: `python -m train.mesh`."""
