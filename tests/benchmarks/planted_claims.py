"""What each interaction claims to learn, and what it cannot.

A polynomial of degree d that mixes fields claims the laws of order d and below, and must fail
above: a law is orthogonal to every function of fewer fields than it multiplies. What mixes no
field with another must fail at all of them. What is no polynomial claims what its paper does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from planted_laws import Law

Expected = Literal["learn", "fail", "none"]
ANY_ORDER = 4  # the highest there is here

# Options that reach the laws' orders, and widths that suit eight fields of width 8.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "cin": ({"hidden_units": (16, 16, 16)},),
    "edcn": ({"batch_norm": True},),  # its gates leave next to nothing of a product without
    "factorized_interaction": ({"hidden_units": (64, 64)},),
    "field_dropout": ({"dropout": 0.1},),
    "frnet": ({"hidden_units": 64},),
    "generalized_interaction": ({"num_layers": 3}, {"num_layers": 2}),
    "glu": ({"hidden_units": 64},),
    "hadamard_cross": ({"num_layers": 3}, {"num_layers": 1}),
    "hofm": ({"order": 4, "tables": "own"}, {"order": 3, "tables": "own"}),
    "mask_net": ({"hidden_units": (64, 64, 64), "mask_units": 64},),
    "mlp": ({"hidden_units": (128, 128)},),
    "pi_net": ({"order": 4},),
    "senet": ({"reduction_ratio": 1},),  # of eight fields a third is two
    "senet_plus": ({"reduction_ratio": 1},),
    "strip_attention": ({"num_strips": 8},),  # four serve two of three pairs
}

# Orders that what has no degree claims, and why.
CLAIMED: dict[str, tuple[int, str]] = {
    "additive_mixer": (2, "fields meet in one layer's gates"),
    "afm": (2, "an attention over products of two"),
    "aft": (2, "fields gather from all others in one layer"),
    "autoint": (4, "three layers, each of which adds an order"),
    "cross_mixture": (4, "three crosses, each of which adds an order"),
    "disentangled_attention": (4, "three layers, each of which adds an order"),
    "edcn": (4, "three crosses, each of which adds an order"),
    "euler": (ANY_ORDER, "learns the order"),
    "exponential_cross": (ANY_ORDER, "two crosses, each of which doubles the order"),
    "gated_cross": (4, "three crosses, each of which adds an order"),
    "glu": (2, "a product of two maps of the row"),
    "gmlp": (2, "half the channels times a mix of the other half, once"),
    "highway": (2, "a gate of the row times a map of the row"),
    "linear_cross": (4, "three crosses, each of which adds an order"),
    "logarithmic_transformation": (ANY_ORDER, "learns the order"),
    "mask_net": (ANY_ORDER, "three masks, each a product with the row"),
    "mfb": (2, "a product of two maps"),
    "mlb": (2, "a product of two maps"),
    "mlp": (ANY_ORDER, "interactions of any order, implicitly"),
    "quadratic_neural": (ANY_ORDER, "three products, each of which doubles the order"),
    "rank_mixer": (2, "a network of each token's own over parts of all"),
    "strip_attention": (2, "fields attend to mixes of all fields"),
    "wukong": (ANY_ORDER, "three layers, each of which doubles the order"),
}

# What has a degree and claims no more than one product of single numbers, and why.
ONE_PRODUCT = {
    "cross_net": "a layer multiplies all by one number: its output is x_0 times a number "
    "(xDeepFM, theorem 3.1)"
}
# Laws that are claimed by the order, and are none of what is read.
UNREADABLE = {("logarithmic_transformation", "content"): "reads sizes; this law is all sign"}

# Gates and masks are no interactions: they stand before one, as in their papers. These read the
# whole row to set a field's weight, and so claim the gate beside what stands behind them.
BEFORE = {
    "feature_selection": "fm",
    "field_dropout": "fm",
    "frnet": "fm",
    "gate_net": "fm",
    "learned_gate": "fm",
    "lhuc": "fm",
    "senet": "fm",
    "senet_plus": "fm",
}
# FiBiNET multiplies the fields pairwise beside the weighted ones, and so do these here: what stands
# behind them reads the fields as well.
BESIDE_THE_FIELDS = ("senet", "senet_plus")
GATES_BY_ROW = ("feature_selection", "frnet", "lhuc", "senet", "senet_plus")
# Those mix nothing, and stand alone too, to be seen to fail.
ALONE = ("field_dropout", "gate_net", "learned_gate")


@dataclass(frozen=True)
class Candidate:
    """A layer with its options, what stands behind it, and whether that reads the fields too."""

    layer: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    behind: str | None = None
    is_beside: bool = False

    def __str__(self) -> str:
        told = list(self.options.items())[:1] if len(OPTIONS.get(self.layer, ())) > 1 else []
        label = ", ".join([self.layer, *(f"{key} {value}" for key, value in told)])
        if not self.behind:
            return label
        return f"{label} + {self.behind}" + (f", {self.behind}" if self.is_beside else "")


def candidates(chosen: Sequence[str]) -> list[Candidate]:
    """What there is to learn with, of the interactions chosen."""
    found = []
    for name in chosen:
        for given in OPTIONS.get(name, ({},)):
            if name not in BEFORE or name in ALONE:
                found.append(Candidate(name, given))
            if name in BEFORE:
                found.append(Candidate(name, given, BEFORE[name], name in BESIDE_THE_FIELDS))
    return found


def expected(
    candidate: Candidate, name: str, law: Law, *, degree: int | None, reaches: bool
) -> Expected:
    """What is to be expected of a candidate.

    Args:
        candidate: a layer, alone or before another.
        name: of the law.
        law: what it is to learn.
        degree: derived, or None.
        reaches: whether as many inputs as the law's order meet in it.
    """
    if not reaches:
        return "fail"
    if candidate.layer in ONE_PRODUCT and law.num_products > 1:
        return "none"
    if (candidate.layer, name) in UNREADABLE:
        return "none"
    if degree is not None:
        return "learn"
    if candidate.behind:
        gates = name == "gate" and candidate.layer in GATES_BY_ROW
        return "learn" if law.order == 2 or gates else "none"
    claimed, _ = CLAIMED.get(candidate.layer, (1, ""))
    return "learn" if law.order <= claimed else "none"
