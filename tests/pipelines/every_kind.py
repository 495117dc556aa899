"""A run of a card with a column of every kind, made without a training: its weights are random."""

from pathlib import Path
from typing import Any

import torch

from recsys_had.data.folder import DataFolder
from recsys_had.experiment_file import load_experiment_with_card
from recsys_had.ingestion.ingest import ingest
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.run_folder import write_run_folder
from recsys_had.schema import parse_card

CARD = """\
name: visits
format: {{type: {type}, header: {header}}}
columns:
  click: {{kind: label}}
  age: {{kind: integer, transform: log1p}}
  price: {{kind: float, transform: standardise}}
  time: {{kind: timestamp, format: "%Y-%m-%d %H:%M:%S", parts: {{hour: hour, weekday: day}}}}
  user: {{kind: categorical}}
  tags: {{kind: multi_categorical, separator: "|"}}
  image: {{kind: vector, size: 2, separator: ";"}}
  session: {{kind: id}}
split: {{by: given}}
"""
EXPERIMENT = """\
dataset: {card}
model:
  embedding_dim: 4
  nodes:
    fm:
    deep: {{layer: mlp, inputs: [fields, dense, image], hidden_units: [8]}}
"""
COLUMNS = ("click", "age", "price", "time", "user", "tags", "image", "session")
Row = dict[str, str]


def right_rows(number: int) -> list[Row]:
    """Rows as text that are as the card says; some values are missing."""
    return [
        dict(
            zip(
                COLUMNS,
                (
                    str(row % 2),
                    "" if row % 7 == 6 else str(20 + row % 5),
                    f"{row / 4}",
                    f"2024-03-{1 + row % 9:02d} {row % 24:02d}:15:00",
                    f"u{row % 7}",
                    "|".join(f"t{tag}" for tag in range(row % 4)),
                    f"{row % 3};{row % 5 - 2}",
                    f"s{row}",
                ),
                strict=True,
            )
        )
        for row in range(number)
    ]


def text_of(rows: list[Row], separator: str, *, header: bool) -> str:
    """Rows as a text file has them."""
    lines = [separator.join(row.values()) for row in rows]
    return "\n".join([separator.join(rows[0])] * header + lines) + "\n"


def make_run(folder: Path, *, type: str = "csv", header: bool = True) -> Path:
    """The run of a card for files of a type; the same weights and ids for all of them.

    Args:
        folder: where it is made.
        type: csv or tsv.
        header: whether files have one.
    """
    folder.mkdir()
    told: dict[str, Any] = {"type": type, "header": str(header).lower()}
    (folder / "visits.yaml").write_text(CARD.format(**told))
    raw = folder / f"raw.{type}"
    raw.write_text(text_of(right_rows(200), "," if type == "csv" else "\t", header=header))
    card = parse_card((folder / "visits.yaml").read_text())
    ingest(card, [("train", raw)], folder / "data", num_workers=1)
    (folder / "fm.yaml").write_text(EXPERIMENT.format(card=folder / "visits.yaml"))
    experiment, _ = load_experiment_with_card(str(folder / "fm.yaml"), ())
    data = DataFolder.open(folder / "data")
    model = CTRModel(
        fields=field_specs(card, data.num_embeddings),
        dense=card.dense,
        config=experiment.model,
        vectors=card.vectors,
        seed=1,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    run = folder / "run"
    run.mkdir()
    write_run_folder(
        run, experiment=experiment, data=data, state=model.export_state(), metrics={}, facts={}
    )
    return run
