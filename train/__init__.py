"""Train and evaluate models, from a checkout: `python -m train.NAME`."""
