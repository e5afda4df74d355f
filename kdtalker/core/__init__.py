"""Types and facts that cross stages: motion, options, protocols, rates, files, errors. numpy only."""
