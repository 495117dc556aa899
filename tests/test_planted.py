"""The benchmark of planted laws: they are what they are said to be, and what cannot learn them."""

import importlib
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

LAWS = (
    "pairs, rank 2", "pairs, rank 8", "triples", "order 4", "gate", "context", "content",
    "pairs, nuisance",
)  # fmt: skip


@pytest.fixture
def laws(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return importlib.import_module("planted_laws")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return importlib.import_module("planted")


def test_every_law_is_tested(laws: ModuleType) -> None:
    assert tuple(laws.LAWS) == LAWS


@pytest.mark.parametrize("law", LAWS)
def test_a_blind_model_is_far_from_bayes(laws: ModuleType, law: str) -> None:
    bayes, blind = laws.bounds(laws.draw(law, 20_000, seed=1))
    assert bayes < blind - 0.1


@pytest.mark.parametrize("law", LAWS)
def test_the_labels_come_from_the_chances(laws: ModuleType, law: str) -> None:
    rows = laws.draw(law, 20_000, seed=1)
    for low in np.arange(0, 1, 0.2):
        some = (rows.chance >= low) & (rows.chance < low + 0.2)
        deviation = 0.5 / int(some.sum()) ** 0.5
        assert abs(float((rows.label - rows.chance)[some].mean())) < 4 * deviation


@pytest.mark.parametrize("law", LAWS)
def test_the_last_field_has_no_part_in_a_law(laws: ModuleType, law: str) -> None:
    ids, content, logit = laws.sample(laws.LAWS[law], 1_000, np.random.default_rng(0))
    ids[:, 7] = (ids[:, 7] + 1) % laws.LAWS[law].num_ids[7]
    changed = laws.LAWS[law].logit(np.random.default_rng(7), ids, content)
    np.testing.assert_array_equal(changed, logit)


@pytest.mark.parametrize("law", LAWS)
def test_content_matters_where_it_is_given_and_nowhere_else(laws: ModuleType, law: str) -> None:
    ids, content, logit = laws.sample(laws.LAWS[law], 1_000, np.random.default_rng(0))
    changed = laws.LAWS[law].logit(np.random.default_rng(7), ids, content + 1)
    assert np.array_equal(changed, logit) != laws.LAWS[law].has_content


@pytest.mark.parametrize("law, fields, order", [("triples", 6, 3), ("order 4", 4, 4)])
def test_fewer_fields_than_a_law_multiplies_tell_nothing_of_it(
    laws: ModuleType, law: str, fields: int, order: int
) -> None:
    # Over all rows there can be, the mean logit of any order - 1 fields' ids is 0.
    num_ids = laws.LAWS[law].num_ids[0]
    every = np.array(list(product(range(num_ids), repeat=fields)))
    ids = np.pad(every, ((0, 0), (0, 8 - fields)))
    logit = laws.LAWS[law].logit(np.random.default_rng(7), ids, np.zeros((len(ids), 8)))
    grid = logit.reshape((num_ids,) * fields)
    for kept in combinations(range(fields), order - 1):
        others = tuple(set(range(fields)) - set(kept))
        np.testing.assert_allclose(grid.mean(axis=others), 0, atol=1e-12)


def test_a_single_field_tells_nothing_of_pairs(laws: ModuleType) -> None:
    for rank in (2, 8):
        vectors = laws.factors(np.random.default_rng(7), 12, rank)
        np.testing.assert_allclose(vectors.mean(axis=1), 0, atol=1e-12)
        assert np.linalg.matrix_rank(vectors[0] @ vectors[1].T) == rank


def test_a_polynomial_makes_nothing_of_more_fields_than_its_degree(planted: ModuleType) -> None:
    law = planted.LAWS["pairs, rank 2"]
    known = ["fm", "bilinear", "film", "bridge", "hofm", "hadamard_cross", "pi_net", "learned_gate"]
    for candidate in planted.candidates(known):
        degree = planted.Model(candidate, law, std=0.5).degree
        for order in (2, 3, 4, 5):
            reaches = planted.mixed_difference(candidate, law, order) > planted.EXACT
            assert reaches == (order <= degree), (str(candidate), order)


@pytest.mark.parametrize("name", ["linear", "gate_net", "star", "field_dropout", "learned_gate"])
def test_what_mixes_no_fields_has_to_fail_at_every_law(planted: ModuleType, name: str) -> None:
    alone = planted.candidates([name])[0]
    for label, law in planted.LAWS.items():
        reaches = planted.mixed_difference(alone, law, law.order) > planted.EXACT
        degree = planted.Model(alone, law, std=0.5).degree
        found = planted.expected(alone, label, law, degree=degree, reaches=reaches)
        assert found == "fail"


def test_fm_learns_a_pair_and_no_triple(planted: ModuleType) -> None:
    settings = {"rows": 100_000, "batch_size": 250, "std": 0.5}
    (fm,) = planted.candidates(["fm"])
    pairs = planted.learn(fm, "context", settings, {"lr": 0.03}, seed=1)
    assert pairs[-1][1] < 0.1
    triples = planted.learn(fm, "triples", settings, {"lr": 0.03}, seed=1)
    assert triples[-1][1] > 0.9


def test_an_ended_run_is_taken_up_and_an_error_is_told(
    planted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["planted.py", "--out", str(tmp_path), "--rows", "8000", "--laws", "context"]
    monkeypatch.setattr("sys.argv", [*given, "--names", "fm", "linear"])
    learn = planted.learn
    monkeypatch.setattr(planted, "learn", broken_for("fm", learn))
    planted.main()
    assert "| fm | error |" in (tmp_path / "planted.md").read_text()
    monkeypatch.setattr(planted, "learn", broken_for("linear", learn))
    planted.main()
    assert "error" not in (tmp_path / "planted.md").read_text()
    assert (tmp_path / "planted.png").exists()


def test_attempts_may_be_added_and_nothing_else_changed(
    planted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["planted.py", "--out", str(tmp_path), "--laws", "pairs, rank 2", "--names", "fm"]
    monkeypatch.setattr("sys.argv", [*given, "--rows", "2000"])
    tried: list[dict[str, float]] = []

    def learn(candidate, name, settings, attempt, seed):  # type: ignore[no-untyped-def]
        tried.append(attempt)
        return [(2000, 0.5)]

    monkeypatch.setattr(planted, "learn", learn)
    for attempts in (planted.ATTEMPTS[:3], planted.ATTEMPTS):
        monkeypatch.setattr(planted, "ATTEMPTS", attempts)
        planted.main()
        assert tried == attempts  # none of them twice
    for other in ([], [{"lr": 1.0}, *planted.ATTEMPTS]):
        monkeypatch.setattr(planted, "ATTEMPTS", other)
        with pytest.raises(SystemExit, match="has other settings"):
            planted.main()
    monkeypatch.setattr("sys.argv", [*given, "--rows", "4000"])
    with pytest.raises(SystemExit, match="has other settings"):
        planted.main()


def test_what_weighs_fields_beside_them_leaves_the_pairs_of_the_fields(planted: ModuleType) -> None:
    (senet,) = planted.candidates(["senet"])
    (fm,) = planted.candidates(["fm"])
    law = planted.LAWS["context"]
    rows = planted.draw("context", 100, seed=1)
    torch.manual_seed(0)
    model, plain = planted.Model(senet, law, std=0.5), planted.Model(fm, law, std=0.5)
    plain.tables.load_state_dict(model.tables.state_dict())
    with torch.no_grad():
        for name, weight in model.graph.named_parameters():
            if "node" in name:
                weight.zero_()  # every field is weighted by 0
        expected = plain(rows.ids, rows.content)
        torch.testing.assert_close(model(rows.ids, rows.content), expected)
    assert expected.std() > 0


def broken_for(name, learn):  # type: ignore[no-untyped-def]
    def try_it(candidate, *arguments, **settings):  # type: ignore[no-untyped-def]
        if candidate.layer == name:
            raise ValueError("not ready")
        return learn(candidate, *arguments, **settings)

    return try_it


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
