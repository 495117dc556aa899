"""Two processes train as one does: same losses, same weights, whatever the sharding."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from tests.training.compiler import needs_compiler
from tests.training.launch import launch_forked
from tests.training.small_model import MODEL

# 449 rows: at 64 a step the last one holds a single row, so rank 1 has none. So does the last
# step of validation.
ROWS = {"train": 449, "valid": 129}
GLOBAL_BATCH = 64


def settings(
    world_size: int, *, batch_norm: bool = False, numeric: Any = None, **train: Any
) -> Experiment:
    return Experiment.model_validate(
        {
            "dataset": "small",
            "model": {
                **MODEL,
                "numeric": numeric,
                "nodes": {
                    **MODEL["nodes"],
                    "deep": {**MODEL["nodes"]["deep"], "batch_norm": batch_norm},
                },
            },
            "train": {
                "batch_size": GLOBAL_BATCH // world_size,
                "epochs": 2,
                "learning_rate": 0.003,
                "gradient_clip_norm": 0.2,
                "seed": 5,
                **train,
            },
        }
    )


def train(folder: Path, data: Path, world_size: int, **options: Any) -> dict[str, Any]:
    """Runs ``ranks.py`` once a rank and reads what rank 0 wrote."""
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(settings(world_size, **options).model_dump_json())
    names = [folder / "experiment.json", data, folder / "work", folder / "found.json"]
    launch_forked(Path(__file__).with_name("ranks.py"), *names, world_size=world_size)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results at world size 1, by regime; filled on demand."""
    return {}


@pytest.mark.parametrize("regime", ["scale", "published"])
@pytest.mark.parametrize("sharding", ["table_wise", "row_wise"])
def test_two_processes_equal_one(
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    alone: dict[str, Any],
    regime: str,
    sharding: str,
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    if regime not in alone:
        alone[regime] = train(tmp_path / "one", data.path, 1, regime=regime)
    one = alone[regime]
    two = train(tmp_path / "two", data.path, 2, regime=regime, sharding=sharding)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-5)
    assert two["valid"]["rows"] == ROWS["valid"]
    assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-5)
    assert len(two["changed_in_one_step"]) == 8
    assert all(two["changed_in_one_step"].values())
    assert two["weights"].keys() == one["weights"].keys()
    for name, weights in one["weights"].items():
        # Adagrad and Adam blow up rounding where gradients cancel: most weights, not every one.
        difference = np.abs(np.subtract(two["weights"][name], weights))
        assert np.quantile(difference, 0.9) < 2e-3, name


@pytest.mark.parametrize("regime", ["scale", "published"])
def test_two_processes_weigh_rows_as_one_does(
    tmp_path: Path,
    make_small_data: Callable[..., DataFolder],
    weigh: Callable[..., DataFolder],
    regime: str,
) -> None:
    """Some rows count for nothing; a step of them alone (the 1-row tail, perhaps) is no trouble."""
    generator = np.random.default_rng(8)
    weights = {name: generator.choice([0, 0.5, 1, 7], rows) for name, rows in ROWS.items()}
    data = weigh(make_small_data(tmp_path / "data", rows=ROWS), weights)
    one = train(tmp_path / "one", data.path, 1, regime=regime)
    two = train(tmp_path / "two", data.path, 2, regime=regime, sharding="row_wise")
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-5)
    assert two["valid"]["rows"] == ROWS["valid"]
    for metric in ("auc", "logloss", "calibration"):
        assert two["valid"][metric] == pytest.approx(one["valid"][metric], abs=1e-4)
    for name, weights_of_one in one["weights"].items():
        difference = np.abs(np.subtract(two["weights"][name], weights_of_one))
        assert np.quantile(difference, 0.9) < 2e-3, name


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=[pytest.mark.slow, needs_compiler])]
)
def test_batch_norm_over_two_processes_is_that_of_one(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], compiled: bool
) -> None:
    """Compiled too, operation by operation: what other ranks hold is no part of a graph."""
    data = make_small_data(tmp_path / "data", rows={"train": 451, "valid": 64})
    one = train(tmp_path / "one", data.path, 1, batch_norm=True)
    two = train(tmp_path / "two", data.path, 2, batch_norm=True, compile=compiled)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=1e-4)
    assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-4)
    for name, weights in one["weights"].items():
        difference = np.abs(np.subtract(two["weights"][name], weights))
        assert np.quantile(difference, 0.9) < 2e-3, name
    without = train(tmp_path / "without", data.path, 1)
    assert np.abs(np.subtract(without["losses"], one["losses"])).max() > 1e-2


def test_a_loss_that_compares_heads_over_two_processes_is_that_of_one(
    tmp_path: Path, make_small_data: Callable[..., DataFolder]
) -> None:
    """Its weights are means over the rows of all ranks: of one rank's own they would differ."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = train(tmp_path / "one", data.path, 1, loss="tri_bce", learning_rate=0.1)
    two = train(tmp_path / "two", data.path, 2, loss="tri_bce", learning_rate=0.1)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=1e-4)


@pytest.mark.slow
@needs_compiler
def test_two_compiled_processes_equal_one_that_is_not(
    tmp_path: Path, make_small_data: Callable[..., DataFolder]
) -> None:
    """The last step, of one row on one rank alone, runs as it stands on both."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = train(tmp_path / "one", data.path, 1)
    two = train(tmp_path / "two", data.path, 2, sharding="row_wise", compile=True)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-5)
    assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-5)


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise"])
def test_vectors_may_travel_in_half_precision(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], sharding: str
) -> None:
    data = make_small_data(tmp_path / "data", rows=ROWS)
    one = train(tmp_path / "one", data.path, 1)
    two = train(tmp_path / "two", data.path, 2, sharding=sharding, communication="fp16")
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-4)
    # It would be nearer had nothing been rounded.
    assert np.abs(np.subtract(two["losses"], one["losses"])).max() > 1e-6
    assert all(two["changed_in_one_step"].values())


def test_two_processes_sum_up_batches_as_one_does(
    tmp_path: Path, make_small_data: Callable[..., DataFolder]
) -> None:
    """Tables divided and copied, and the dense part, which is averaged after every batch."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    settings: dict[str, Any] = {
        "embedding_optimizer": "lazy_adam",
        "sharding": {"default": "row_wise", "tables": {"B": "data_parallel"}},
    }
    one = train(tmp_path / "one", data.path, 1, **settings)
    parts = {"batch_size": 16, "accumulate_steps": 2}
    two = train(tmp_path / "two", data.path, 2, **settings, **parts)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=2e-5)
    for name, weights in one["weights"].items():
        difference = np.abs(np.subtract(two["weights"][name], weights))
        assert np.quantile(difference, 0.9) < 2e-3, name


KINDS = {
    "piecewise_linear": {"num_bins": 5},
    "periodic": {"num_frequencies": 3, "normalise": "batch"},
    "autodis": {"num_meta_embeddings": 4, "learn_temperature": True},
    "mlp": {"hidden_units": [4], "normalise": "batch"},
    "scale": {"bias": True},
}


@pytest.mark.parametrize(
    ("kind", "regime"),
    [
        ("piecewise_linear", "scale"),
        # One stands for all in the fast tests: a case starts three processes.
        pytest.param("piecewise_linear", "published", marks=pytest.mark.slow),
        *(
            pytest.param(kind, "scale", marks=pytest.mark.slow)
            for kind in KINDS
            if kind != "piecewise_linear"
        ),
    ],
)
def test_numeric_columns_over_two_processes_are_those_of_one(
    tmp_path: Path, make_small_data: Callable[..., DataFolder], kind: str, regime: str
) -> None:
    """Fitted bins are equal to the last bit, losses and validation as far as rounding lets them."""
    data = make_small_data(tmp_path / "data", rows=ROWS)
    options: dict[str, Any] = {"numeric": {"kind": kind, **KINDS[kind]}, "regime": regime}
    one = train(tmp_path / "one", data.path, 1, **options)
    two = train(tmp_path / "two", data.path, 2, sharding="row_wise", **options)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=1e-4)
    assert two["valid"]["logloss"] == pytest.approx(one["valid"]["logloss"], abs=1e-4)
    own = [name for name in one["weights"] if ".numeric_fields." in name]
    assert own
    assert two["weights"].keys() == one["weights"].keys()
    for name in own:
        if name.endswith(".edges"):
            assert len(set(one["weights"][name])) == 6
            assert two["weights"][name] == one["weights"][name]
        elif ".norm." not in name:
            difference = np.abs(np.subtract(two["weights"][name], one["weights"][name]))
            assert np.quantile(difference, 0.9) < 2e-3, name
