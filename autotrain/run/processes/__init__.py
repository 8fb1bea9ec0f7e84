"""More than one process that trains the same model."""
