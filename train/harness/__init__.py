"""What every trainer shares: command, configuration, runs, figures."""
