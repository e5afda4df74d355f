"""Edits: functions from motion to motion."""
