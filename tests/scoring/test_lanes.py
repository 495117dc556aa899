"""A row's score is the same to the bit, whatever rows it is scored with and by how many threads."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recsys_had.batch import Batch, EncodedRows
from recsys_had.bundled import configs_dir
from recsys_had.experiment_file import load_experiment
from recsys_had.layout import Layout
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import FieldSpec
from recsys_had.scoring.lanes import Lanes

Forward = Callable[[Batch], torch.Tensor]
FIELDS = (
    *("user", "item", "daytime", "weekday", "isweekend"),
    *("homework", "cost", "weather", "country", "city"),
)
EXPERIMENTS = sorted(path.stem for path in configs_dir().glob("frappe_*.yaml"))


def rows(num_rows: int) -> EncodedRows:
    draw = np.random.default_rng(5)
    return EncodedRows(
        Layout(FIELDS),
        np.arange(num_rows),
        None,
        draw.integers(0, 50, (num_rows, len(FIELDS))).astype(np.int32),
        {},
        np.empty((num_rows, 0), np.float32),
    )


def logits(lanes: int, model: Forward, rows: EncodedRows, *, batch_size: int) -> np.ndarray:
    batches = list(Lanes(lanes).run(lambda batch: [model(batch)], rows, batch_size=batch_size))
    index = np.concatenate([index for index, _ in batches])
    np.testing.assert_array_equal(index, np.arange(len(rows)))
    assert all(len(index) <= max(batch_size, 32) for index, _ in batches)
    return np.concatenate([found.numpy() for _, [found] in batches])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_bundled_model_scores_a_row_alike_in_any_company(name: str) -> None:
    config = load_experiment(configs_dir() / f"{name}.yaml").model
    model = CTRModel(
        fields=[FieldSpec(field, 50) for field in FIELDS], dense=(), config=config, seed=1
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # Initial tables are all but zero.
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    some = rows(173)
    whole = logits(1, model, some, batch_size=4096)
    assert np.isfinite(whole).all() and whole.std() > 0
    for lanes, batch_size in ((1, 1), (1, 7), (4, 32), (2, 100)):
        np.testing.assert_array_equal(logits(lanes, model, some, batch_size=batch_size), whole)
    few = some.take(np.arange(100, 107))
    np.testing.assert_array_equal(logits(3, model, few, batch_size=4096), whole[100:107])


def test_torch_has_its_threads_back_afterwards() -> None:
    before = torch.get_num_threads()
    seen = []

    def forward(batch: object) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return torch.zeros(32)

    assert logits(2, forward, rows(33), batch_size=8).shape == (33,)
    assert set(seen) == {1}
    assert torch.get_num_threads() == before

    def fail(batch: object) -> torch.Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        logits(2, fail, rows(5), batch_size=8)
    assert torch.get_num_threads() == before


def test_no_rows_have_no_scores() -> None:
    assert list(Lanes(1).run(lambda batch: [torch.zeros(0)], rows(0), batch_size=8)) == []
