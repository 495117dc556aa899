"""A look at encoded rows: figures of a data folder."""

from recsys_had.profile.figures import Profile, profile

__all__ = ["Profile", "profile"]
