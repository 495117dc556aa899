"""Methods that see the logit or its terms: COSTARR, Mahalanobis, maximum probability, energy."""

import math

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from sklearn.metrics import roc_auc_score

from recsys_had.errors import DataError
from recsys_had.novelty import Fitting, Method, Seen, fit
from recsys_had.novelty.mahalanobis import shrunk
from tests.novelty import oracles
from tests.novelty.oracles import fitting_of, rows_of


def _made(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[int], list[float]]:
    """Terms whose weighted sum is the logit, and labels drawn by it."""
    generator = np.random.default_rng(seed)
    weights = [0.8, -1.5, 0.3]
    z = generator.normal((0.5, 0.2, 1.0), size=(num_rows, 3))
    logit = z @ weights - 0.5
    label = (generator.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(int).tolist()
    return z.astype(np.float32), logit.astype(np.float32), label, weights


def _fitted(name: str, num_rows: int = 200) -> tuple[Method, Fitting, list[float]]:
    z, logit, label, weights = _made(num_rows, 1)
    fitting = fitting_of(
        rows_of([[1]] * num_rows, label=label), logit=logit, terms=z, weights=weights
    )
    return fit(name, fitting), fitting, weights


def _seen(z: np.ndarray, logit: np.ndarray) -> Seen:
    return Seen(rows_of([[1]] * len(z)), logit, list(torch.split(torch.from_numpy(z), 2, dim=1)))


def test_costarr_equals_the_formula_in_loops() -> None:
    method, _, weights = _fitted("costarr")
    training, logits, labels, _ = _made(200, 1)
    z, logit, _, _ = _made(50, 2)
    z[0] = 0.0
    expected = [
        oracles.costarr(
            row.tolist(),
            value,
            training=training.tolist(),
            logits=logits.tolist(),
            labels=labels,
            weights=weights,
        )
        for row, value in zip(z, logit.tolist(), strict=True)
    ]
    found = method(_seen(z, logit))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.min() >= 0 and found.max() <= 1


def test_costarr_by_hand() -> None:
    # Two clicks of ten, so the click rate's logit is log(.2 / .8) = -1.386; the clicks alone are
    # scored above it. Weights (1, 0): u = (z1, z2, z1, 0).
    logits = [-4.0] * 8 + [2.0] * 2
    terms = [[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 2
    fitting = fitting_of(
        rows_of([[1]] * 10, label=[0] * 8 + [1] * 2),
        logit=logits,
        terms=terms,
        weights=[1.0, 0.0],
    )
    method = fit("costarr", fitting)
    z = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, -1.0]], np.float32)
    found = method(_seen(z, np.array([-4.0, -4.0, 2.0, 2.0], np.float32)))
    # Confidences: |-4 + 1.386| = 2.614 is the least, so its norm is 0; 3.386 is the largest, 1.
    # Of the third row the cosine is 1, of the last -1.
    np.testing.assert_allclose(found, [1.0, 1.0, 0.0, 1.0], atol=1e-6)
    halfway = method(_seen(z[:3], np.full(3, 1.614, np.float32)))
    # Confidence 3.0: norm (3 - 2.614) / (3.386 - 2.614) = .5; the prototype is (0, 1, 0, 0), and
    # of (1, 1, 1, 0) the cosine is 1 / sqrt 3.
    expected = [1 - 0.5 / 2, 1 - 0.5 * (1 + 1 / math.sqrt(3)) / 2, 1 - 0.5]
    np.testing.assert_allclose(halfway, expected, atol=1e-3)


def test_costarr_does_not_care_how_long_the_terms_are() -> None:
    method, _, _ = _fitted("costarr")
    z, logit, _, _ = _made(50, 2)
    np.testing.assert_allclose(method(_seen(z * 3, logit)), method(_seen(z, logit)), atol=1e-6)


def test_costarr_has_values_where_the_model_is_never_sure_or_never_right() -> None:
    labels = [0, 1] * 5
    same = fitting_of(
        rows_of([[1]] * 10, label=labels), logit=[0.0] * 10, terms=[[1.0]] * 10, weights=[1.0]
    )
    found = fit("costarr", same)(_seen(np.array([[2.0]], np.float32), np.zeros(1, np.float32)))
    # All confidences are 0, so all count for 1, and the cosine is 1.
    np.testing.assert_allclose(found, [0.0], atol=1e-7)
    wrong = fitting_of(
        rows_of([[1]] * 10, label=labels),
        logit=[1.0, -1.0] * 5,
        terms=[[1.0, 0.0], [0.0, 1.0]] * 5,
        weights=[1.0, 1.0],
    )
    z = np.array([[1.0, 0.0]], np.float32)
    # Scored as a click; all clicks, wrong as they are, have (0, 1).
    found = fit("costarr", wrong)(_seen(z, np.ones(1, np.float32)))
    np.testing.assert_allclose(found, [0.5], atol=1e-7)


def test_mahalanobis_equals_the_formula_in_loops() -> None:
    method, fitting, _ = _fitted("mahalanobis")
    training, _, labels, _ = _made(200, 1)
    x = training.astype(np.float64)
    means = [x[np.array(labels) == side].mean(axis=0) for side in (0, 1)]
    apart = np.stack([row - means[side] for row, side in zip(x, labels, strict=True)])
    covariance, _ = oas(apart, assume_centered=True)
    z, logit, _, _ = _made(50, 2)
    expected = [
        min(float((row - mean) @ np.linalg.solve(covariance, row - mean)) for mean in means)
        for row in z.astype(np.float64)
    ]
    np.testing.assert_allclose(method(_seen(z, logit)), expected, rtol=2e-4)
    assert fitting.label.sum() == sum(labels)


def test_mahalanobis_by_hand() -> None:
    # Class 0 at (0, 0), class 1 at (10, 0), both with a spread of 1 in each direction and no
    # covariance: S is the identity, whatever it is shrunk by.
    spread = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
    terms = spread + [[a + 10, b] for a, b in spread]
    fitting = fitting_of(
        rows_of([[1]] * 8, label=[0] * 4 + [1] * 4), terms=terms, weights=[1.0, 1.0]
    )
    method = fit("mahalanobis", fitting)
    z = np.array([[0.0, 0.0], [3.0, 4.0], [9.0, 0.0], [5.0, 0.0]], np.float32)
    np.testing.assert_allclose(
        method(_seen(z, np.zeros(4, np.float32))), [0.0, 25.0, 1.0, 25.0], atol=1e-4
    )


def test_mahalanobis_does_not_care_about_the_terms_units_or_turns() -> None:
    z, logit, label, weights = _made(400, 1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    others, _, _, _ = _made(50, 2)
    found = []
    for move in (np.eye(3, dtype=np.float32), turn, 7 * np.eye(3, dtype=np.float32)):
        fitting = fitting_of(
            rows_of([[1]] * 400, label=label), logit=logit, terms=z @ move, weights=weights
        )
        found.append(fit("mahalanobis", fitting)(_seen(others @ move, logit[:50])))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-3)


def test_shrinking_is_that_of_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(12, 5)) * [1, 2, 3, 4, 5]
    expected, share = oas(x, assume_centered=True)
    found = shrunk(torch.from_numpy(x.T @ x / 12), rows=12)
    assert found is not None and 0 < share < 1
    np.testing.assert_allclose(found.numpy(), expected)


def test_a_term_that_never_changes_is_no_obstacle() -> None:
    z, logit, label, _ = _made(100, 1)
    z = np.concatenate([z, np.full((100, 1), 4.0, np.float32)], axis=1)
    fitting = fitting_of(rows_of([[1]] * 100, label=label), logit=logit, terms=z, weights=[1.0] * 4)
    found = fit("mahalanobis", fitting)(_seen(z, logit))
    assert np.isfinite(found).all() and found.std() > 0


@pytest.mark.parametrize("name", ["costarr", "mahalanobis"])
@pytest.mark.parametrize(("labels", "told"), [([], "0 rows, 0"), ([1, 1], "2 rows, 2")])
def test_nothing_or_one_class_is_refused(name: str, labels: list[int], told: str) -> None:
    rows = rows_of(np.ones((len(labels), 1)), label=labels)
    terms = np.ones((len(labels), 2))
    with pytest.raises(DataError, match=rf"^here: {name} needs rows of both labels; got {told} of"):
        fit(name, fitting_of(rows, terms=terms, weights=[1.0, 1.0]))


def test_mahalanobis_refuses_terms_that_never_change_and_too_many() -> None:
    rows = rows_of([[1]] * 4, label=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"^here: mahalanobis .* the same in every row of a class"):
        fit("mahalanobis", fitting_of(rows, terms=[[1.0, 2.0]] * 4, weights=[1.0, 1.0]))
    with pytest.raises(DataError, match=r"^here: mahalanobis .* at most; got 2,049"):
        fit("mahalanobis", fitting_of(rows, terms=[[1.0] * 2049] * 4, weights=[1.0] * 2049))


def test_maximum_probability_and_energy_are_their_formulas() -> None:
    logits = np.array([-3.0, 0.0, 0.5, 100.0, -100.0], np.float32)
    seen = _seen(np.zeros((5, 2), np.float32), logits)
    nothing = fitting_of(rows_of([[1]], label=[0]))
    found = fit("max_probability", nothing)(seen)
    chances = [1 / (1 + math.exp(-float(value))) for value in logits]
    np.testing.assert_allclose(found, [1 - max(p, 1 - p) for p in chances], atol=1e-7)
    assert found[1] == 0.5
    energy = fit("energy", nothing)(seen)
    expected = [-math.log(1 + math.exp(float(value))) for value in logits[:3]]
    np.testing.assert_allclose(energy[:3], expected, rtol=1e-6)
    np.testing.assert_allclose(energy[3:], [-100.0, 0.0], atol=1e-40)
    assert roc_auc_score([0, 0, 1, 0, 1], energy) == roc_auc_score([0, 0, 1, 0, 1], -logits)


def test_unseen_values_are_counted_over_all_fields() -> None:
    method = fit("unseen", fitting_of(rows_of([[1]], label=[0])))
    ids, lists = [[0, 1], [0, 0], [3, 2]], [[0, 0, 1], [4], [0]]

    def of(**more: list[list[int]]) -> list[float]:
        rows = rows_of(ids, lists=lists, **more)
        return method(Seen(rows, np.zeros(3, np.float32))).tolist()

    # Of encoded rows alone nobody knows which 0 was a missing value.
    assert of() == [3.0, 2.0, 1.0]
    assert of(unseen=[[1, 0, 2], [0, 0, 0], [0, 0, 0]]) == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["costarr", "mahalanobis", "max_probability", "energy"])
def test_batches_of_any_size_give_the_same(name: str) -> None:
    method, _, _ = _fitted(name)
    z, logit, _, _ = _made(100, 3)
    whole = method(_seen(z, logit))
    for size in (1, 7, 64):
        parts = [
            method(_seen(z[first : first + size], logit[first : first + size]))
            for first in range(0, 100, size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
