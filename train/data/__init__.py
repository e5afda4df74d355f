"""Films to shards: `python -m train.data`."""
