"""A look at encoded rows."""
