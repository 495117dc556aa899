"""A look at encoded rows: figures of a data folder, and one page that shows them."""

from recsys_had.profile.figures import Profile, profile
from recsys_had.profile.page import page

__all__ = ["Profile", "page", "profile"]
