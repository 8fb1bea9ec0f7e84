"""Is this machine, and what is installed on it, fit to train? Checks that each answer alone."""
