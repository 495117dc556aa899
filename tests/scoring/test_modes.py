"""Modes of scoring: near the exact one, as far from it as is measured, alike by any threads."""

from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from recsys_had.batch import EncodedRows
from recsys_had.errors import ConfigError
from recsys_had.model.ctr import CTRModel
from recsys_had.scoring import Mode
from recsys_had.scoring.lanes import Lanes
from tests.scoring.bundled import model_and_rows
from tests.scoring.test_every_model import EXPERIMENTS
from tests.training.compiler import needs_compiler

BF16, INT8, COMPILED = Mode(precision="bf16"), Mode(tables="int8"), Mode(compile=True)
FAST = ("frappe_fm", "frappe_dcn_v2", "movielens_fibinet", "criteo_x4_dlrm")
# In bfloat16 they are as exact as ever.
WITHOUT_PRODUCTS = ("frappe_ffm", "frappe_fm", "frappe_hofm", "frappe_lr")
# They take logarithms of embeddings, and half a step is much to a number near 0.
LOGARITHMIC = ("frappe_afn", "frappe_afn_plus")
# Its tables have one column.
NARROW = "frappe_lr"


def logits(
    model: CTRModel, rows: EncodedRows, mode: Mode, *, lanes: int = 1, batch_size: int = 64
) -> np.ndarray[Any, Any]:
    share = mode.keeps_bits_in_any_batch
    found = Lanes(lanes).run(lambda b: [model(b)], rows, batch_size=batch_size, share=share)
    return np.concatenate([logit.numpy() for _, [logit] in found])


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS],
)
def test_every_bundled_model_scores_near_the_exact_one(name: str) -> None:
    exact_model, rows = model_and_rows(name, size=200)
    exact = logits(exact_model, rows, Mode())
    for mode, limit in ((BF16, 0.05), (INT8, 0.02), (Mode("bf16", "int8"), 0.05)):
        model, _ = model_and_rows(name, size=1)
        if name == NARROW and mode.tables == "int8":
            with pytest.raises(ConfigError, match=r"^--tables int8: no table of the model has 3"):
                mode.apply(model, rows=64)
            continue
        mode.apply(model, rows=64)
        found = logits(model, rows, mode)
        assert np.isfinite(found).all()
        # Of the logits' own size: those of some models are hundreds.
        room = limit * max(1.0, np.abs(exact).max())
        apart = np.abs(found - exact).max()
        assert apart < room or (name in LOGARITHMIC and mode.tables == "int8"), mode
        assert (apart == 0) == (mode == BF16 and name in WITHOUT_PRODUCTS), mode
        # Threads change no bit, in any mode.
        np.testing.assert_array_equal(logits(model, rows, mode, lanes=3), found)
        if mode == INT8:
            np.testing.assert_array_equal(logits(model, rows, mode, batch_size=7), found)


@needs_compiler
@pytest.mark.parametrize(
    "name", ["frappe_fm", pytest.param("criteo_1tb_dlrm_dcn_v2", marks=pytest.mark.slow)]
)
def test_compiled_batches_score_as_others_do(name: str) -> None:
    """In several threads that come to the program at once."""
    exact_model, rows = model_and_rows(name, size=64 * 8 + 5)
    exact = logits(exact_model, rows, Mode())
    model, _ = model_and_rows(name, size=1)
    COMPILED.apply(model, rows=64)
    torch._dynamo.reset()
    counters.clear()
    for lanes in (4, 1):
        found = logits(model, rows, COMPILED, lanes=lanes)
        size = max(1.0, np.abs(exact).max())
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * size)
    # Once: for whole batches, not for the last one, and not by each thread.
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@needs_compiler
def test_many_models_of_a_process_are_compiled() -> None:
    """torch compiles eight graphs of one place in the code and runs the ninth as it stands."""
    torch._dynamo.reset()
    counters.clear()
    models = []
    for number in range(10):
        model, rows = model_and_rows("frappe_lr", size=64)
        COMPILED.apply(model, rows=64)
        logits(model, rows, COMPILED)
        models.append(model)
        assert counters["stats"]["unique_graphs"] == number + 1


def test_a_mode_leaves_training_as_it_is() -> None:
    model, rows = model_and_rows("frappe_dcn_v2", size=64)
    batch = rows.to_batch()
    torch.manual_seed(0)
    expected = model.train()(batch).detach()
    BF16.apply(model.eval(), rows=64)
    torch.manual_seed(0)
    assert torch.equal(model.train()(batch).detach(), expected)
    assert not torch.equal(model.eval()(batch).detach(), expected)


def test_words_that_are_no_mode_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^precision: must be one of .*; got 'fp16'\.$"):
        Mode(precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^tables: must be one of .*; got 'int4'\.$"):
        Mode(tables="int4")  # type: ignore[arg-type]


def test_without_a_compiler_compile_is_refused(no_compiler: None) -> None:
    model, _ = model_and_rows("frappe_lr", size=1)
    told = r"^--compile: there is no C\+\+ compiler\. Install g\+\+, or leave the option out\.$"
    with pytest.raises(ConfigError, match=told):
        COMPILED.apply(model, rows=64)
