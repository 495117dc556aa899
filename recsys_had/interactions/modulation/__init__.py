"""Domain III: gates and masks that depend on the row."""
