"""Layout: names and order of a model's inputs; what needs no rows needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Names and order of a model's inputs.

    Args:
        fields: name of each categorical field, in the card's order.
        multi: which of them hold several values a row.
        dense: names of the dense inputs.
        vectors: name and size of each content vector.
        has_weight: whether encoded rows have a weight; rows to be scored need none.
        managed: which of the fields hold 63 bits of a hash in place of ids.
    """

    fields: tuple[str, ...]
    multi: frozenset[str] = frozenset()
    dense: tuple[str, ...] = ()
    vectors: Mapping[str, int] = field(default_factory=dict)
    has_weight: bool = False
    managed: frozenset[str] = frozenset()

    @property
    def id_dtype(self) -> type[np.int32] | type[np.int64]:
        """What all ids are held in."""
        return np.int64 if self.managed else np.int32

    @property
    def single(self) -> tuple[str, ...]:
        """The fields with one value a row."""
        return tuple(name for name in self.fields if name not in self.multi)
