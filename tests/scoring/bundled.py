"""Bundled models as a training leaves them, and rows for them."""

import torch

from recsys_had.batch import EncodedRows
from recsys_had.data.folder import layout_of
from recsys_had.experiment_file import load_experiment_with_card
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.scoring.drawn_rows import drawn_rows


def model_and_rows(name: str, *, size: int) -> tuple[CTRModel, EncodedRows]:
    """A bundled model with weights as large as a training makes them, and rows for it."""
    experiment, card = load_experiment_with_card(name, ())
    model = CTRModel(
        fields=field_specs(card, {field.name: 30 for field in card.fields}),
        dense=card.dense,
        config=experiment.model,
        vectors=card.vectors,
        seed=1,
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            # Far from where a training begins: many begin at 0.
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model, drawn_rows(model, layout_of(card), size=size, seed=2)
