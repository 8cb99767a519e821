"""Networks and their training: epochs, warm-ups, a trial."""
