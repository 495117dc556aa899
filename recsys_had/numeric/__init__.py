"""Kinds of numeric columns' embeddings: a class in a file each, the file's name the kind's.

Nothing here imports torch until a kind's options or its module are asked for.
"""

from recsys_had.numeric._catalog import build, kinds, options, tokens

__all__ = ["build", "kinds", "options", "tokens"]
