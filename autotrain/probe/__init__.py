"""What the machine, the data and the model are: read from the system or traced, never guessed."""
