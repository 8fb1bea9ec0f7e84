"""One module a command: typed arguments in, exit code out. Compose, then render."""
