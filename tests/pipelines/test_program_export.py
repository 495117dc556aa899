"""``recsys-had export --to torch-export|onnx``: a model as a program, its scores as the run's."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from recsys_had.batch import EncodedRows
from recsys_had.calibration import Calibrator
from recsys_had.calibration.maps import TemperatureMap
from recsys_had.data.folder import layout_of
from recsys_had.data.parquet import rows_from_table
from recsys_had.run_folder import RunFolder, sealed
from recsys_had.scoring import BatchPredictor, onnx_program, torch_program
from recsys_had.scoring.drawn_rows import drawn_rows
from recsys_had.scoring.program_files import write_program
from recsys_had.whole_files import file_digest
from tests.pipelines.conftest import CARD, Job, raw_rows

SIZES = (1, 7, 4096)
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
NEEDS_ONNX = pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript or onnxruntime is missing")

# All kinds of inputs: managed fields, single- and multi-valued, dense inputs, a vector.
EVERYTHING = (
    CARD.replace("user: {kind: categorical", "user: {kind: categorical, managed: {rows: 15}")
    .replace('separator: ","', 'separator: ",", managed: {rows: 5, admit_after: 2}')
    .replace("  session: {kind: id}", "  image: {kind: vector, size: 3, separator: ' '}")
)
MODELS = {
    "fm": "{linear: , fm: }",
    "deepfm": "{linear: , fm: , deep: {layer: mlp, hidden_units: [8], batch_norm: true}}",
    "dcn_v2": "{cross: {layer: hadamard_cross}, deep: {layer: mlp, hidden_units: [8]}, "
    "joined: {inputs: [cross, deep], formula: x}}",
    "fibinet": "{senet: , pairs: {layer: bilinear}, second: {layer: bilinear, inputs: [senet]}, "
    "deep: {layer: mlp, inputs: [pairs, second], hidden_units: [8]}}",
    "vectors": "{linear: , deep: {layer: mlp, inputs: [fields, image, dense], hidden_units: [8]}}",
}


FAST = [("plain", "deepfm"), ("everything", "vectors")]
SLOW = [(card, name) for card in ("plain", "everything") for name in MODELS]
CASES = [
    *FAST,
    *(
        pytest.param(card, name, marks=pytest.mark.slow)
        for card, name in SLOW
        if (card, name) not in [*FAST, ("plain", "vectors")]
    ),
]


@pytest.fixture(scope="module")
def trained(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Trains models on rows of few kinds of columns, or of all, each once."""
    root = tmp_path_factory.mktemp("trained")

    def train(card: str, name: str) -> Path:
        folder = root / card
        if not folder.exists():
            folder.mkdir()
            (folder / "card.yaml").write_text(EVERYTHING if card == "everything" else CARD)
            (folder / "raw.tsv").write_text("\n".join(lines_of(card)) + "\n")
            words = ("--raw", folder / "raw.tsv", "--out", folder / "data")
            done = cli("ingest", folder / "card.yaml", *words)
            assert done.code == 0, done.err
        run = folder / name
        if not run.exists():
            experiment = folder / f"{name}.yaml"
            experiment.write_text(
                f"dataset: card.yaml\nmodel: {{embedding_dim: 6, nodes: {MODELS[name]}}}\n"
                "train: {epochs: 1, batch_size: 200, learning_rate: 0.05}\n"
            )
            words = ("--data", folder / "data", "--out", run, "--no-tracking")
            done = cli("train", experiment, *words)
            assert done.code == 0, done.err
        return run

    return train


def lines_of(card: str) -> list[str]:
    """Raw rows; of everything the last column is a vector."""
    lines = raw_rows(1000, seed=5)
    if card == "plain":
        return lines
    numbers = np.random.default_rng(1).normal(size=(1000, 3)).round(3)
    vectors = (" ".join(map(str, row)) for row in numbers)
    pairs = zip(lines, vectors, strict=True)
    return [f"{line.rpartition(chr(9))[0]}\t{vector}" for line, vector in pairs]


def inputs_by_hand(encoded: pl.DataFrame, told: Sequence[dict[str, Any]]) -> list[NDArray[Any]]:
    """What the manifest tells, made of an encoded frame as a user would."""
    found = []
    for given in told:
        name, dtype = given["name"], given["dtype"]
        if name in ("ids", "dense"):
            array = np.stack([encoded[column].to_numpy() for column in given["columns"]], axis=1)
        elif name.endswith(".values"):
            array = encoded[given["columns"][0]].explode().drop_nulls().to_numpy()
        elif name.endswith(".lengths"):
            array = encoded[given["columns"][0]].list.len().to_numpy()
        else:
            array = np.stack(encoded[name].to_list())
        found.append(array.astype(dtype))
    return found


def encoded_rows(run: Path, size: int) -> tuple[BatchPredictor, pl.DataFrame]:
    predictor = BatchPredictor.load(run)
    frame = pl.read_csv(
        run.parent / "raw.tsv", separator="\t", has_header=False, infer_schema=False,
        new_columns=["label", "age", "visits", "user", "item", "tags", "image"],
    )  # fmt: skip
    frame = pl.concat([frame] * 5)[:size]
    return predictor, predictor.encoder.encode(frame, place="row")


def rows_of(predictor: BatchPredictor, encoded: pl.DataFrame) -> EncodedRows:
    numbered = encoded.to_arrow().append_column("row_id", pa.array(np.arange(len(encoded))))
    return rows_from_table(numbered, layout_of(predictor.run.card))


@pytest.mark.parametrize(("card", "name"), CASES)
def test_a_torch_program_scores_batches_of_any_size_as_the_run(
    cli: Callable[..., Any],
    trained: Callable[[str, str], Path],
    tmp_path: Path,
    card: str,
    name: str,
) -> None:
    run, out = trained(card, name), tmp_path / "out"
    done = cli("export", run, "--to", "torch-export", "--out", out, "--json")
    assert done.code == 0, done.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert done.json == manifest
    assert manifest["kind"] == "torch-export" and manifest["lookups"] is True
    assert manifest["largest_score_error"] <= 1e-6
    assert manifest["files"] == {"model.pt2": file_digest(out / "model.pt2")}
    program = torch.export.load(out / "model.pt2").module()
    for size in SIZES:
        predictor, encoded = encoded_rows(run, size)
        tensors = [torch.from_numpy(a) for a in inputs_by_hand(encoded, manifest["inputs"])]
        with torch.no_grad():
            found = torch.sigmoid(program(*tensors)).numpy()
        expected = predictor.score_rows(rows_of(predictor, encoded))
        assert found.shape == (size,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@NEEDS_ONNX
@pytest.mark.parametrize(("card", "name"), CASES)
def test_an_onnx_program_scores_batches_of_any_size_as_the_run(
    cli: Callable[..., Any],
    trained: Callable[[str, str], Path],
    tmp_path: Path,
    card: str,
    name: str,
) -> None:
    import onnxruntime

    run, out = trained(card, name), tmp_path / "out"
    done = cli("export", run, "--to", "onnx", "--out", out, "--json")
    assert done.code == 0, done.err
    manifest = done.json
    is_whole = card == "plain"
    assert manifest["lookups"] is is_whole
    assert manifest["largest_score_error"] <= 1e-6
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    assert [given.name for given in session.get_inputs()] == [
        given["name"] for given in manifest["inputs"]
    ]
    for size in SIZES:
        predictor, encoded = encoded_rows(run, size)
        rows = rows_of(predictor, encoded)
        if is_whole:
            arrays = inputs_by_hand(encoded, manifest["inputs"])
        else:
            batch = rows.take(np.arange(size)).to_batch()
            held = predictor.model.embeddings(batch)
            arrays = [
                held[given["name"].removesuffix(".rows")][:, : len(given["columns"])]
                .detach().numpy() if given["name"].endswith(".rows")
                else (batch.dense if given["name"] == "dense" else batch.vectors[given["name"]])
                .numpy()
                for given in manifest["inputs"]
            ]  # fmt: skip
        names = [given["name"] for given in manifest["inputs"]]
        logit = session.run(["logit"], dict(zip(names, arrays, strict=True)))[0]
        expected = predictor.score_rows(rows)
        found = 1 / (1 + np.exp(-logit.astype(np.float64)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", [("onnx",), ("onnx", "onnxscript")])
def test_libraries_that_onnx_needs_are_named(
    cli: Callable[..., Any], job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    missing: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "recsys_had.scoring.onnx_program.importlib.util.find_spec",
        lambda name: None if name in missing else object(),
    )
    done = cli("export", job.run, "--to", "onnx", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err == (
        f"--to onnx: needs {' and '.join(missing)}, which this installation lacks. Run `pip "
        "install onnx onnxscript`, and onnxruntime for a check of what is written.\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_export_of_another_kind_is_not_replaced(
    cli: Callable[..., Any], job: Job, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert cli("export", job.run, "--to", "bundle", "--out", out).code == 0
    done = cli("export", job.run, "--to", "torch-export", "--out", out, "--overwrite")
    assert done.code == 2
    told = "holds a result that is no export to torch-export. Choose another folder."
    assert done.err == f"{out}: {told}\n"


def test_a_program_whose_scores_are_others_is_refused(job: Job, tmp_path: Path) -> None:
    predictor = BatchPredictor.load(job.run)
    flat = torch_program.FlatModel(predictor.model, layout_of(predictor.run.card))

    def written(folder: Path) -> list[Path]:
        (folder / "program").write_text("")
        return [folder / "program"]

    def off(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return flat(*tensors) + 1e-4

    from recsys_had.errors import ConfigError

    with pytest.raises(ConfigError, match=r"the exported program's scores differ .* batch of 1\."):
        write_program(
            predictor, tmp_path / "out", kind="test", flat=flat, write=written,
            load=lambda path: off, facts={}, overwrite=False,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_what_torch_does_not_take_is_told_in_one_line(
    cli: Callable[..., Any], job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("data-dependent branch\nand a long story")

    monkeypatch.setattr(torch.export, "export", refuse)
    done = cli("export", job.run, "--to", "torch-export", "--out", tmp_path / "out")
    assert done.code == 2
    told = "torch.export does not take the model: data-dependent branch"
    assert done.err == f"{job.run}: {told}\n"
    assert not (tmp_path / "out").exists()


def test_drawn_rows_reach_all_that_tables_hold(job: Job) -> None:
    predictor = BatchPredictor.load(job.run)
    layout = layout_of(predictor.run.card)
    rows = drawn_rows(predictor.model, layout, size=4096, seed=1)
    for place, name in enumerate(layout.single):
        held = predictor.encoder.num_embeddings[name]
        assert np.unique(rows.ids[:, place]).tolist() == list(range(held))
    assert np.unique(np.diff(rows.lists["tags"].offsets)).tolist() == [0, 1, 2, 3, 4, 5]
    assert onnx_program.TRACED_ROWS > 1


def test_the_correction_for_sampling_and_a_calibrator_that_is_left_out_are_told(
    job: Job, tmp_path: Path
) -> None:
    """Whoever follows the manifest comes to the run's own scores, before its calibrator."""
    folder = tmp_path / "run"
    shutil.copytree(job.run, folder)
    run = RunFolder.open(folder)
    sampled = sealed({**run.manifest, "sampling": {"negatives": 0.1, "left_out": 7}})
    (folder / "manifest.json").write_text(json.dumps(sampled))
    before = BatchPredictor.load(folder)
    calibrator = Calibrator(whole=TemperatureMap(temperature=2.0))
    before.run.add("calibrator", calibrator.to_text())
    manifest = torch_program.export_torch(BatchPredictor.load(folder), tmp_path / "out")
    assert manifest["score"] == "1 / (1 + exp(-(logit + shift))), before any calibration"
    assert manifest["run_has_calibrator"] is True
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    flat = torch_program.FlatModel(before.model, layout_of(before.run.card))
    rows = drawn_rows(before.model, layout_of(before.run.card), size=9, seed=1)
    with torch.no_grad():
        logit = program(*flat.tensors(rows)).numpy().astype(np.float64)
    found = 1 / (1 + np.exp(-(logit + manifest["shift"])))
    np.testing.assert_allclose(found, before.score_rows(rows), rtol=0, atol=1e-6)
    assert np.abs(found - 1 / (1 + np.exp(-logit))).max() > 0.1
