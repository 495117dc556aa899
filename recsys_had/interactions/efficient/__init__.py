"""Domain IV: mixing of fields without a list of pairs."""
