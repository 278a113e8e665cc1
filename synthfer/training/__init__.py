"""Training without Ray: data, runs, the `Trainer`, tasks, losses, results."""
