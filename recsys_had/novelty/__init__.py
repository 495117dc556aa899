"""Novelty: how unlike the training traffic a row is, by one of several methods.

A method is fitted on training rows, kept as plain numbers, and gives every row a number; a higher
one means a more novel row. What it sees of rows is a :class:`Seen`: their ids, the model's logits
and, where it asks for them, the terms of the logit. None runs the model itself.
"""

from recsys_had.novelty.method import Fitting, Method, Seen
from recsys_had.novelty.methods import DEFAULT, METHODS, fit, from_text, kept_last, to_text

__all__ = [
    "DEFAULT",
    "METHODS",
    "Fitting",
    "Method",
    "Seen",
    "fit",
    "from_text",
    "kept_last",
    "to_text",
]
