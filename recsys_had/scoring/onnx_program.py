"""``export --to onnx``: the whole model, or what follows the lookups, as ``model.onnx``."""

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys_had.data.folder import layout_of
from recsys_had.errors import ConfigError
from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.flat_model import DenseModel, FlatModel
from recsys_had.scoring.predictor import BatchPredictor
from recsys_had.scoring.program_files import Run, not_taken, write_program
from recsys_had.scoring.torch_program import TRACED_ROWS, dynamic_shapes

_FILE = "model.onnx"
_NEEDED = ("onnx", "onnxscript")


def export_onnx(predictor: BatchPredictor, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Writes a run as an ONNX program with any number of rows.

    The whole model, lookups included; of a model with managed fields, whose values ONNX has no
    operation to search for, what follows the lookups: it is fed with the rows that were looked up.
    Where onnxruntime is installed the written file is run and compared.

    Args:
        predictor: of the run.
        out: folder to write.
        overwrite: replace an export of the same kind.

    Returns:
        The manifest.

    Raises:
        ConfigError: a library is not installed, or the model cannot be exported.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"--to onnx: needs {' and '.join(missing)}, which this installation lacks. Run "
            "`pip install onnx onnxscript`, and onnxruntime for a check of what is written."
        )
    is_whole = not predictor.model.embeddings.managed_fields
    make = FlatModel if is_whole else DenseModel
    flat = make(predictor.model, layout_of(predictor.run.card))

    def write(folder: Path) -> Sequence[Path]:
        _write(predictor, flat, folder / _FILE)
        return [folder / _FILE, *sorted(folder.glob(f"{_FILE}.data"))]

    return write_program(
        predictor,
        out,
        kind="onnx",
        flat=flat,
        write=write,
        load=lambda path: _loaded(path, flat),
        facts={"lookups": is_whole},
        overwrite=overwrite,
    )


def _write(predictor: BatchPredictor, flat: FlatModel | DenseModel, path: Path) -> None:
    rows = drawn_rows(predictor.model, layout_of(predictor.run.card), size=TRACED_ROWS, seed=0)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                flat.eval(),
                tuple(flat.tensors(rows)),
                dynamic_shapes={"tensors": dynamic_shapes(flat.inputs)},
                input_names=[given.name for given in flat.inputs],
                output_names=["logit"],
                dynamo=True,
                verbose=False,
            )
        except Exception as cause:
            raise not_taken(predictor, "torch.onnx", cause) from cause
        assert program is not None
        # Beside the program, for one of more than 2 GiB is not read.
        program.save(str(path), external_data=_size_bytes(flat) > 1 << 30)


def _size_bytes(flat: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in flat.parameters())


def _loaded(path: Path, flat: FlatModel | DenseModel) -> Run | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in flat.inputs]

    def run(tensors: Sequence[Tensor]) -> Tensor:
        given = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run
