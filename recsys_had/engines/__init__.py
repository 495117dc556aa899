"""Engines: where work that is cut into tasks runs: one process, several, or a Ray cluster."""
