"""Training, on one process or many."""
