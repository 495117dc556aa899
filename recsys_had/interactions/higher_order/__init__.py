"""Domain I: correlations of two fields, of three, of many."""
