"""Every bundled model as a program of torch.export, for batches of any size."""

from pathlib import Path

import pytest
import torch

from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.flat_model import FlatModel
from recsys_had.scoring.torch_program import dynamic_shapes
from tests.scoring.bundled import model_and_rows

CONFIGS = Path(__file__).parents[2] / "configs"
# Each definition once: Frappe has all of them but one. Numbers and many values are Criteo's.
EXPERIMENTS = [
    *sorted(path.stem for path in CONFIGS.glob("frappe_*.yaml")),
    "criteo_1tb_dlrm_dcn_v2",
    "criteo_x4_dlrm",
    "criteo_x4_finalmlp",
    "synthetic_dlrm",
    "movielens_fibinet",
]
FAST = ("frappe_fm", "movielens_fibinet")


def test_no_definition_is_left_out() -> None:
    wanted = {path.stem for path in (CONFIGS / "models").glob("*.yaml")}
    texts = [(CONFIGS / f"{name}.yaml").read_text() for name in EXPERIMENTS]
    found = {line.split(":")[1].strip() for text in texts for line in text.splitlines()
             if line.strip().startswith("definition:")}  # fmt: skip
    assert wanted <= found


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS],
)
def test_a_model_is_one_program_for_batches_of_any_size(name: str) -> None:
    model, first = model_and_rows(name, size=11)
    layout = first.layout
    flat = FlatModel(model, layout)
    with torch.no_grad():
        given = tuple(flat.tensors(first))
        shapes = {"tensors": dynamic_shapes(flat.inputs)}
        program = torch.export.export(flat, given, dynamic_shapes=shapes).module()
        for size in (1, 7, 4096):
            rows = drawn_rows(model, layout, size=size, seed=size)
            found = torch.sigmoid(program(*flat.tensors(rows)))
            expected = torch.sigmoid(model(rows.to_batch()))
            assert found.shape == (size,)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
