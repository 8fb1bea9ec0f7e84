"""What a run's figures say to a person: red flags, with advice."""
