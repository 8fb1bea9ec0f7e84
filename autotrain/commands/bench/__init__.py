"""`autotrain bench`: each module is one of its commands."""
