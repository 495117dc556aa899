"""On clicks whose law is known, the strongest pairs are those of the law."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from recsys_had.batch import EncodedRows, Layout
from recsys_had.config import ModelConfig
from recsys_had.explanation import Explainer, mean_of_rows, strength_of
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import FieldSpec

FIELDS = ("a", "b", "c", "d", "e", "f")
PLANTED = {("a", "b"), ("c", "d"), ("a", "e")}
IDS = 8
# The bundled definitions, their networks made small.
MODELS = {
    "fm": {"linear": {"layer": "linear"}, "fm": {"layer": "fm"}},
    "dcn_v2": {
        "cross": {"layer": "hadamard_cross", "num_layers": 2},
        "deep": {"layer": "mlp", "hidden_units": (32,)},
        "joined": {"layer": "formula", "formula": "x", "inputs": ("cross", "deep")},
    },
    "fibinet": {
        "linear": {"layer": "linear"},
        "gated": {"layer": "senet"},
        "pairs": {"layer": "bilinear"},
        "gated_pairs": {"layer": "bilinear", "inputs": ("gated",)},
        "deep": {"layer": "mlp", "inputs": ("pairs", "gated_pairs"), "hidden_units": (32,)},
    },
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(count: int) -> tuple[EncodedRows, dict[tuple[str, str], np.ndarray]]:
    """Rows, and what each planted pair adds to their logits."""
    law, generator = np.random.default_rng(5), np.random.default_rng(6)
    ids = generator.integers(1, IDS, (count, len(FIELDS)))
    terms = {}
    for pair in sorted(PLANTED):
        left, right = law.normal(size=(2, IDS))
        left[1:] -= left[1:].mean()
        right[1:] -= right[1:].mean()
        first, second = (ids[:, FIELDS.index(name)] for name in pair)
        terms[pair] = 1.5 * left[first] * right[second]
    logit = sum(terms.values())
    label = (generator.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    none = np.empty((count, 0), np.float32)
    rows = EncodedRows(Layout(FIELDS), np.arange(count), label, ids.astype(np.int32), {}, none)
    return rows, terms


@pytest.mark.parametrize("name", MODELS)
def test_the_planted_pairs_are_the_strongest(name) -> None:
    torch.manual_seed(0)
    rows, terms = drawn(20_000)
    config = ModelConfig.model_validate(
        {"embedding_dim": 4, "embedding_init_std": 0.3, "nodes": MODELS[name]}
    )
    model = CTRModel(fields=[FieldSpec(n, IDS) for n in FIELDS], dense=[], config=config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(400):
        batch = rows.take(np.arange(step % 40 * 500, step % 40 * 500 + 500)).to_batch()
        loss = functional.binary_cross_entropy_with_logits(model(batch), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    some = rows.take(np.arange(300))
    with torch.no_grad():
        baseline = mean_of_rows([model.sources(rows.to_batch())])
    explainer = Explainer(model, baseline)
    effects = explainer.of_rows(some)
    _, pairs = strength_of(explainer, effects)
    assert {pair.fields for pair in pairs[: len(PLANTED)]} == PLANTED
    # And in single rows: how much, and in which direction.
    for pair, term in terms.items():
        found = effects.pair[:, explainer.pair_names.index(pair)]
        assert np.corrcoef(found, term[:300])[0, 1] > 0.9
    strongest = np.abs(effects.pair).argmax(axis=1)
    told = [explainer.pair_names[place] in PLANTED for place in strongest]
    assert np.mean(told) > 0.9
