"""Effects of fields and pairs: exact where they are said to be, by other ways of computing them."""

from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch

from recsys_had.batch import EncodedRows, Layout
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.explanation import Explainer, mean_of_rows, unseen
from recsys_had.explanation.differences import difference_effects
from recsys_had.explanation.parts import RowParts
from recsys_had.explanation.quadratic import quadratic_effects
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import FieldSpec
from tests.explanation.models import LAYOUT, model_of, rows_of

QUADRATIC = {
    "lr": {"linear": None},
    "fm": {"linear": None, "fm": None},
    "fwfm": {"linear": None, "fwfm": None},
    "fmfm": {"fmfm": None},
    "ffm": {"linear": None, "ffm": None},
    "bilinear": {"pairs": "bilinear"},
    "dense too": {"fm": None, "numbers": {"layer": "linear", "inputs": ["dense"]}},
    "a vector": {
        "fm": None,
        "seen": {
            "layer": "formula",
            "formula": 'pool(lin(image, out=4) * pool(fields, "T"), "C")',
            "inputs": ["image", "fields"],
        },
    },
}
DEEP = {
    "fm": None,
    "deep": {"layer": "mlp", "hidden_units": (8,), "inputs": ["fields", "image", "dense"]},
}


def spelled(nodes):
    def one(name, node):
        node = {"layer": name} if node is None else node
        return {"layer": node} if isinstance(node, str) else node

    return {name: one(name, node) for name, node in nodes.items()}


def explainer_of(nodes, **settings) -> Explainer:
    model = model_of(spelled(nodes))
    with torch.no_grad():
        baseline = mean_of_rows([model.sources(rows_of(50, seed=9).to_batch())])
    return Explainer(model, baseline, **settings)


def test_lr_and_fm_are_what_their_formulas_say() -> None:
    explainer = explainer_of(QUADRATIC["fm"])
    model, rows = explainer._model, rows_of(6)
    effects = explainer.of_rows(rows)
    with torch.no_grad():
        found = model.sources(rows.to_batch())
        logit = model(rows.to_batch()).numpy()
    weight, vector = (found[name].double().numpy() for name in ("linear", "fields"))
    mean_weight = explainer.baseline.sources["linear"].numpy()[0]
    mean = explainer.baseline.sources["fields"].numpy()[0]
    names = list(combinations(range(6), 2))
    assert explainer.is_exact
    for row in range(6):
        for i in range(6):
            moved = vector[row, i] - mean[i]
            others = sum(mean[j] for j in range(6) if j != i)
            expected = weight[row, i, 0] - mean_weight[i, 0] + moved @ others
            assert effects.single[row, i] == pytest.approx(expected, abs=1e-12)
        for place, (i, j) in enumerate(names):
            expected = (vector[row, i] - mean[i]) @ (vector[row, j] - mean[j])
            assert effects.pair[row, place] == pytest.approx(expected, abs=1e-10)
    total = effects.baseline + effects.single.sum(axis=1) + effects.pair.sum(axis=1)
    np.testing.assert_allclose(total, logit, atol=1e-5)


@pytest.mark.parametrize("name", QUADRATIC)
def test_polynomials_of_degree_two_are_told_completely(name) -> None:
    explainer = explainer_of(QUADRATIC[name])
    effects = explainer.of_rows(rows_of(7))
    assert explainer.is_exact
    assert np.abs(effects.logit - effects.baseline).max() > 0.1
    np.testing.assert_allclose(effects.rest(), 0, atol=1e-9)


@pytest.mark.parametrize("name", QUADRATIC)
def test_gradients_and_second_differences_agree_on_them(name) -> None:
    explainer = explainer_of(QUADRATIC[name])
    with torch.no_grad():
        row = explainer._model.sources(rows_of(5).to_batch())
    row = {source: row[source].double() for source in explainer.parts.places}
    given = (explainer._logit, row, explainer._base, explainer.parts)
    both = quadratic_effects(*given), difference_effects(*given)
    for exact, differences in zip(*both, strict=True):
        torch.testing.assert_close(exact, differences, atol=1e-10, rtol=1e-8)


def test_pairs_of_an_additive_model_are_nothing() -> None:
    effects = explainer_of(QUADRATIC["lr"]).of_rows(rows_of(5))
    assert (effects.pair == 0).all()
    assert (effects.single != 0).any()


def test_a_pair_is_worth_its_coefficient() -> None:
    # f = 2 + 3 x0 - x1 + 5 x0 x1, from (1, 1) with f 9 to (3, 0) with f 11: field 0 alone gives
    # f(3, 1) - 9 = 25 - 9 = 16, field 1 alone f(1, 0) - 9 = 5 - 9 = -4, and the pair
    # 5 * (3 - 1) * (0 - 1) = -10; 16 - 4 - 10 = 2 = 11 - 9.
    parts = RowParts(("x0", "x1"), {"x": torch.tensor([0, 1])})

    def function(sources):
        x0, x1 = sources["x"].unbind(dim=1)
        return 2 + 3 * x0 - x1 + 5 * x0 * x1

    row, base = ({"x": torch.tensor([x], dtype=torch.float64)} for x in ([3.0, 0], [1.0, 1]))
    for effects in (quadratic_effects, difference_effects):
        single, pair, logit = effects(function, row, base, parts)
        torch.testing.assert_close(single, torch.tensor([[16.0, -4.0]]).double())
        torch.testing.assert_close(pair, torch.tensor([[-10.0]]).double())
        assert logit.tolist() == [11.0]


def shapley_taylor(value, num_fields):
    """The index of order 2 by its definition: the mean over all orders in which fields are put in.

    A pair's second difference is taken where all that stand before both of them are in.
    """
    found = np.zeros((num_fields, num_fields))
    orders = list(permutations(range(num_fields)))
    for order in orders:
        for i, j in combinations(range(num_fields), 2):
            before = frozenset(order[: min(order.index(i), order.index(j))])
            found[i, j] += (
                value(before | {i, j}) - value(before | {i}) - value(before | {j}) + value(before)
            )
    return found[np.triu_indices(num_fields, k=1)] / len(orders)


@pytest.mark.parametrize(("layers", "is_exact"), [(2, True), (3, False)])
def test_crosses_are_told_by_the_shapley_taylor_index_up_to_degree_three(layers, is_exact) -> None:
    nodes = {"cross": {"layer": "hadamard_cross", "num_layers": layers}}
    explainer = explainer_of(nodes)
    assert not explainer.is_exact
    model, rows, parts = explainer._model, rows_of(1), explainer.parts
    with torch.no_grad():
        row = {name: x.double() for name, x in model.sources(rows.to_batch()).items()}
        values = {}
        for mask in product((False, True), repeat=parts.num_fields):
            mixed = parts.mixed(row, explainer._base, torch.tensor(mask).view(1, 1, -1))
            values[mask] = float(explainer._logit(mixed))
    expected = shapley_taylor(
        lambda fields: values[tuple(n in fields for n in range(parts.num_fields))], parts.num_fields
    )
    effects = explainer.of_rows(rows)
    worst = np.abs(effects.pair[0] - expected).max()
    assert (worst < 1e-9) == is_exact
    assert worst < 0.5 * np.abs(expected).max()
    assert (abs(effects.rest()[0]) < 1e-9) == is_exact
    first = [values[tuple(n == i for n in range(parts.num_fields))] for i in range(6)]
    np.testing.assert_allclose(effects.single[0], np.array(first) - effects.baseline, atol=1e-9)


@pytest.mark.parametrize("nodes", [QUADRATIC["fm"], DEEP])
def test_a_row_is_told_alike_alone_and_among_others(nodes) -> None:
    explainer, rows = explainer_of(nodes, compared=4), rows_of(40)
    together = explainer.of_rows(rows)
    order = np.random.default_rng(0).permutation(40)
    shuffled = explainer.of_rows(rows.take(order))
    for name in ("single", "pair", "logit"):
        whole = getattr(together, name).astype(np.float32)
        assert (getattr(shuffled, name).astype(np.float32) == whole[order]).all()
        for row in (0, 39):
            alone = getattr(explainer.of_rows(rows.take(np.array([row]))), name)
            assert (alone.astype(np.float32) == whole[[row]]).all()


def test_the_fields_that_move_a_row_most_form_its_pairs() -> None:
    rows = rows_of(30)
    every, some = (explainer_of(DEEP, compared=n).of_rows(rows) for n in (None, 3))
    assert ((some.pair != 0).sum(axis=1) <= 3).all()
    looked_at = some.pair != 0
    np.testing.assert_allclose(some.pair[looked_at], every.pair[looked_at], atol=1e-10)
    np.testing.assert_allclose(some.single, every.single, atol=1e-10)
    kept = np.abs(some.pair).max(axis=1) / np.abs(every.pair).max(axis=1)
    assert np.median(kept) == pytest.approx(1)


def test_numbers_vectors_and_lists_are_fields_and_joined_columns_one() -> None:
    assert RowParts.of(model_of(spelled(QUADRATIC["fm"]))).names == (
        "a", "b", "c", "tags", "age", "price",
    )  # fmt: skip
    names = ("a", "b", "c", "tags", "age", "price", "image")
    assert RowParts.of(model_of(spelled(DEEP))).names == names
    joined = model_of(spelled(DEEP), numeric={"kind": "mlp", "hidden_units": [4]})
    parts = RowParts.of(joined)
    assert parts.names == ("a", "b", "c", "tags", "age+price", "image")
    assert parts.places["dense"].tolist() == [4, 4]
    assert parts.places["fields"].tolist() == [0, 1, 2, 3, 4]


def test_a_field_that_is_not_moved_has_no_effect() -> None:
    model = model_of(spelled(DEEP))
    rows = rows_of(4)
    ids = rows.ids.copy()
    ids[:, 1] = 0
    rows = EncodedRows(LAYOUT, rows.row_id, None, ids, rows.lists, rows.dense, rows.vectors)
    explainer = Explainer(model, unseen(model, LAYOUT))
    effects = explainer.of_rows(rows)
    assert (effects.single[:, 1] == 0).all()
    with_b = ["b" in pair for pair in explainer.pair_names]
    assert (effects.pair[:, with_b] == 0).all()
    assert (effects.single[:, 0] != 0).any()


def test_no_rows_have_no_effects() -> None:
    effects = explainer_of(DEEP).of_rows(rows_of(0))
    assert effects.single.shape == (0, 7)
    assert effects.pair.shape == (0, 21)


def test_a_model_of_one_field_is_refused() -> None:
    config = ModelConfig.model_validate({"nodes": {"linear": {"layer": "linear"}}})
    model = CTRModel(fields=[FieldSpec("a", 5)], dense=[], config=config)
    with pytest.raises(ConfigError, match=r"reads one field alone, a, which moves every score"):
        Explainer(model, unseen(model, Layout(("a",))))
