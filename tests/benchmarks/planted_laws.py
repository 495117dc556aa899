"""Laws to plant in clicks: sums of products over sets of fields, whose best logloss is known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

NUM_FIELDS, CONTENT_WIDTH = 8, 8
DEVIATION = 2.0  # of the planted logit
Floats, Ids = NDArray[np.float64], NDArray[np.int64]
Logit = Callable[[np.random.Generator, Ids, Floats], Floats]


@dataclass(frozen=True)
class Law:
    """What decides a row's chance of a click.

    Args:
        order: how many fields have to be multiplied.
        logit: of a generator of the law's own numbers, ids ``(B, F)`` and content ``(B, 8)``.
        num_ids: of each field.
        least_left: share of the law that no model of a lower degree can learn, less some margin.
        has_content: whether a row's content vector is given beside its ids.
        num_products: of single numbers of so many fields, of which it is a sum.
        width: of an embedding. Where all pairs are weighed alike it has to hold the ranks of all
            pairs side by side, or one pair's vectors would have products with another's; where a
            sum of all inputs is multiplied with itself, an id's vector and the content's too.
    """

    order: int
    logit: Logit
    num_products: int
    num_ids: tuple[int, ...] = (12,) * NUM_FIELDS
    least_left: float = 0.9
    has_content: bool = False
    width: int = 8


@dataclass(frozen=True)
class Rows:
    """Ids ``(B, F)``, content ``(B, 8)``, labels and true chances."""

    ids: Tensor
    content: Tensor
    label: Tensor
    chance: Tensor


def factors(generator: np.random.Generator, num_ids: int, rank: int) -> Floats:
    """A vector for each id of each field: ``(F, ids, rank)``.

    Evenly spaced numbers in random order, so that a product's mean over one field's ids is 0:
    fewer fields than the law multiplies tell nothing of it.
    """
    spaced = np.linspace(-1, 1, num_ids)
    return np.stack(
        [[generator.permutation(spaced) for _ in range(rank)] for _ in range(NUM_FIELDS)]
    ).transpose(0, 2, 1)


def products(*sets: tuple[int, ...], rank: int, num_ids: int = 12) -> Logit:
    """Sums over sets of fields of the products of their vectors."""

    def logit(generator: np.random.Generator, ids: Ids, content: Floats) -> Floats:
        u = factors(generator, num_ids, rank)
        return np.sum(
            [np.prod([u[f, ids[:, f]] for f in fields], axis=0).sum(axis=1) for fields in sets],
            axis=0,
        )

    return logit


def gated(generator: np.random.Generator, ids: Ids, content: Floats) -> Floats:
    """Pairs that field 6 switches on and off."""
    gate = generator.permutation(np.arange(12) % 2)[ids[:, 6]]
    return gate * products((0, 1), (2, 3), rank=2)(generator, ids, content)


def modulated(generator: np.random.Generator, ids: Ids, content: Floats) -> Floats:
    """A single effect whose sign the context, field 6, decides."""
    sign = generator.permutation(np.arange(12) % 2)[ids[:, 6]] * 2 - 1
    return sign * factors(generator, 12, 1)[0, ids[:, 0], 0]


def matched(generator: np.random.Generator, ids: Ids, content: Floats) -> Floats:
    """The content vector times a vector of field 0's id."""
    return (factors(generator, 12, CONTENT_WIDTH)[0, ids[:, 0]] * content).sum(axis=1)


PAIRS = ((0, 1), (2, 3), (4, 5))
# Field 7 has a part in no law. Where three or four fields decide they have few ids, so that the
# rows suffice to tell their sets apart.
LAWS = {
    "pairs, rank 2": Law(2, products(*PAIRS, rank=2), 6),
    "pairs, rank 8": Law(2, products(*PAIRS, rank=8), 24, width=24),
    "triples": Law(3, products((0, 1, 2), (3, 4, 5), rank=2, num_ids=6), 4, (6,) * 8),
    "order 4": Law(4, products((0, 1, 2, 3), rank=1, num_ids=4), 1, (4,) * 8),
    # Half of the logit's variance is in pairs: the gate's mean times them.
    "gate": Law(3, gated, 4, least_left=0.5),
    "context": Law(2, modulated, 1),
    "content": Law(2, matched, CONTENT_WIDTH, has_content=True, width=2 * CONTENT_WIDTH),
    "pairs, nuisance": Law(2, products(*PAIRS, rank=2), 6, (12,) * 7 + (5_000,)),
}


def sample(law: Law, num_rows: int, generator: np.random.Generator) -> tuple[Ids, Floats, Floats]:
    """Ids, content and the logit as the law has it; the law's own numbers are always the same."""
    ids = generator.integers(0, law.num_ids, (num_rows, NUM_FIELDS))
    content = generator.normal(size=(num_rows, CONTENT_WIDTH))
    return ids, content, law.logit(np.random.default_rng(7), ids, content)


@lru_cache(maxsize=2)
def draw(name: str, num_rows: int, seed: int) -> Rows:
    """Rows of a law."""
    law, generator = LAWS[name], np.random.default_rng(seed)
    spread = sample(law, 100_000, np.random.default_rng(0))[-1].std()
    ids, content, logit = sample(law, num_rows, generator)
    chance = 1 / (1 + np.exp(-DEVIATION * logit / spread))
    label = generator.random(num_rows) < chance
    floats = [torch.as_tensor(x).float() for x in (content, label, chance)]
    return Rows(torch.as_tensor(ids), *floats)


def bounds(rows: Rows) -> tuple[float, float]:
    """Logloss of the true chances, the best there is, and of their mean, a blind model's."""
    blind = rows.chance.mean().expand(len(rows.chance))
    bayes, blind = (functional.binary_cross_entropy(x, rows.chance) for x in (rows.chance, blind))
    return float(bayes), float(blind)
