"""Share between trainers: command, configuration, runs, figures."""
