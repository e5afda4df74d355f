"""Measure students, teachers and trainings: figures of motion, cost, rows of results."""
