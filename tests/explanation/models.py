"""Small models with weights that are not small, and rows for them."""

from typing import Any

import numpy as np
import torch

from recsys_had.batch import EncodedRows, Layout, Ragged
from recsys_had.config import ModelConfig
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import FieldSpec

FIELDS = [FieldSpec("a", 5), FieldSpec("b", 4), FieldSpec("c", 6), FieldSpec("tags", 5, True)]
LAYOUT = Layout(
    ("a", "b", "c", "tags"),
    multi=frozenset({"tags"}),
    dense=("age", "price"),
    vectors={"image": 3},
)


def model_of(nodes: dict[str, Any], **model: Any) -> CTRModel:
    """A model of four fields, two numbers and a vector."""
    config = ModelConfig.model_validate({"embedding_dim": 4, **model, "nodes": nodes})
    made = CTRModel(
        fields=FIELDS, dense=LAYOUT.dense, config=config, vectors=LAYOUT.vectors, seed=3
    ).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.4 * torch.randn(weight.shape, generator=generator)
    return made


def rows_of(count: int, seed: int = 1) -> EncodedRows:
    """Rows of any ids, some with several tags."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 4, count)
    return EncodedRows(
        LAYOUT,
        np.arange(count),
        None,
        np.stack([generator.integers(0, n, count) for n in (5, 4, 6)], 1).astype(np.int32),
        {
            "tags": Ragged(
                np.concatenate([[0], np.cumsum(lengths)]),
                generator.integers(0, 5, lengths.sum()).astype(np.int32),
            )
        },
        generator.normal(size=(count, 2)).astype(np.float32),
        {"image": generator.normal(size=(count, 3)).astype(np.float32)},
    )
