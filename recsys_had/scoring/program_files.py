"""A run as one program: torch.export's or ONNX's, in a folder that tells what it reads and gives.

The folder holds the program and ``manifest.json``: the inputs by name, type and shape in the order
they are given, the output, whether lookups are part of it, and how far its scores were from the
run's own for batches of 1, 7 and 4096 drawn rows, measured on the file as it was written.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from recsys_had.batch import EncodedRows
from recsys_had.data.folder import layout_of
from recsys_had.errors import ConfigError
from recsys_had.output import OutputFolder, refuse_other_kinds
from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.flat_model import FlatInput
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.versions import library_versions
from recsys_had.whole_files import file_digest

_MANIFEST = "manifest.json"
CHECKED_SIZES = (1, 7, 4096)
# Of scores, which lie between 0 and 1.
TOLERANCE = 1e-6

Run = Callable[[Sequence[Tensor]], Tensor]


class FlatProgram(Protocol):
    """A model over a flat list of tensors; see :mod:`recsys_had.scoring.flat_model`."""

    inputs: list[FlatInput]

    def tensors(self, rows: EncodedRows) -> list[Tensor]:
        """Encoded rows as its inputs."""


def write_program(
    predictor: BatchPredictor,
    out: Path,
    *,
    kind: str,
    flat: FlatProgram,
    write: Callable[[Path], Sequence[Path]],
    load: Callable[[Path], Run | None],
    facts: dict[str, Any],
    overwrite: bool,
) -> dict[str, Any]:
    """Writes a program, loads it again and compares its scores with the run's.

    Args:
        predictor: of the run.
        out: folder to write.
        kind: of the folder.
        flat: what is written.
        write: writes it into a folder; the first file it tells is the program.
        load: loads it from its file; gives None where nothing here can run it.
        facts: further entries of the manifest.
        overwrite: replace a folder of the same kind.

    Returns:
        The manifest.

    Raises:
        ConfigError: the program's scores are further off than 1e-6.
        DataError: ``out`` holds something this may not replace.
    """
    refuse_other_kinds(out, _MANIFEST, kind=kind, told=f"export to {kind}")
    with OutputFolder(out, marker=_MANIFEST, overwrite=overwrite) as folder:
        files = write(folder.stage)
        run = load(files[0])
        worst = None if run is None else _checked(predictor, flat, run)
        manifest = {
            "kind": kind,
            "program": files[0].name,
            "dataset": predictor.run.card.name,
            "run_digest": predictor.run.manifest["digest"],
            "weights_digest": predictor.run.manifest["weights_digest"],
            **facts,
            "inputs": [given.described() for given in flat.inputs],
            "outputs": [{"name": "logit", "dtype": "float32", "shape": ["B"]}],
            "score": "1 / (1 + exp(-(logit + shift))), before any calibration",
            # For the negatives that training left out; 0 where it left out none.
            "shift": predictor.shift,
            "run_has_calibrator": predictor.calibrated,
            "checked_batch_sizes": [] if worst is None else list(CHECKED_SIZES),
            "largest_score_error": worst,
            "versions": library_versions(),
            "files": {path.name: file_digest(path) for path in files},
        }
        (folder.stage / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        folder.publish()
    return manifest


def not_taken(predictor: BatchPredictor, whose: str, cause: BaseException) -> ConfigError:
    """What is told of a model that torch cannot make a program of: its first reason, in a line."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return ConfigError(f"{predictor.run.path}: {whose} does not take the model: {first}")


def _checked(predictor: BatchPredictor, flat: FlatProgram, run: Run) -> float:
    """The largest difference between the program's scores and the run's.

    Raises:
        ConfigError: it is too large.
    """
    worst = 0.0
    for size in CHECKED_SIZES:
        rows = drawn_rows(predictor.model, layout_of(predictor.run.card), size=size, seed=size)
        with torch.inference_mode():
            expected = predictor.model(rows.to_batch()).double().sigmoid()
            found = run(flat.tensors(rows)).double().sigmoid()
        error = float((found - expected).abs().max())
        if found.shape != expected.shape or not error <= TOLERANCE:
            raise ConfigError(
                f"{predictor.run.path}: the exported program's scores differ from the run's by "
                f"{error:.1e} for a batch of {size}. Export to another kind."
            )
        worst = max(worst, error)
    return worst
