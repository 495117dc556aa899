"""``export --to torch-export``: the whole model as a program of torch.export, ``model.pt2``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_had.data.folder import layout_of
from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.flat_model import FlatInput, FlatModel
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.scoring.program_files import FlatProgram, Run, not_taken, write_program

_FILE = "model.pt2"
# Rows a program is traced with; torch takes axes of 0 and 1 for ones that never change.
TRACED_ROWS = 11


def export_torch(
    predictor: BatchPredictor, out: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a run as a torch program with any number of rows, lookups included.

    Args:
        predictor: of the run.
        out: folder to write.
        overwrite: replace an export of the same kind.

    Returns:
        The manifest.

    Raises:
        ConfigError: torch cannot export the model.
    """
    flat = FlatModel(predictor.model, layout_of(predictor.run.card))

    def write(folder: Path) -> Sequence[Path]:
        torch.export.save(traced(predictor, flat), folder / _FILE)
        return [folder / _FILE]

    def load(path: Path) -> Run:
        program = torch.export.load(path).module()

        def run(tensors: Sequence[Tensor]) -> Tensor:
            logit: Tensor = program(*tensors)
            return logit

        return run

    return write_program(
        predictor,
        out,
        kind="torch-export",
        flat=flat,
        write=write,
        load=load,
        facts={"lookups": True},
        overwrite=overwrite,
    )


def traced(predictor: BatchPredictor, flat: FlatProgram) -> torch.export.ExportedProgram:
    """The program.

    Raises:
        ConfigError: torch cannot trace the model.
    """
    rows = drawn_rows(predictor.model, layout_of(predictor.run.card), size=TRACED_ROWS, seed=0)
    assert isinstance(flat, torch.nn.Module)
    with torch.no_grad():
        try:
            return torch.export.export(
                flat.eval(),
                tuple(flat.tensors(rows)),
                dynamic_shapes={"tensors": dynamic_shapes(flat.inputs)},
            )
        except Exception as cause:
            raise not_taken(predictor, "torch.export", cause) from cause


def dynamic_shapes(inputs: Sequence[FlatInput]) -> tuple[dict[int, Any], ...]:
    """Which axes may change from call to call."""
    return tuple(
        {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(given.shape)
            if isinstance(size, str)
        }
        for given in inputs
    )
