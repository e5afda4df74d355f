"""Distil the speech models into a causal student: methods, data, trainer, table."""
