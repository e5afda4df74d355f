"""The networks that paint mouth and lids: `python -m train.mesh`."""
