"""Baselines: the mean row by rows and by counts, and the row of unseen values."""

import numpy as np
import polars as pl
import torch

from recsys_had.batch import Layout
from recsys_had.config import ModelConfig
from recsys_had.data.encode import Encoder
from recsys_had.data.folder import layout_of
from recsys_had.explanation import Baseline, mean_of_rows, mean_of_vocabularies, unseen
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.schema import parse_card

CARD = parse_card("""
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  user: {kind: categorical}
  shop: {kind: categorical, hash_buckets: 3}
  tags: {kind: multi_categorical, separator: ","}
  age: {kind: float, transform: standardise}
split: {by: given}
""")
ROWS = pl.DataFrame(
    {
        "click": [1, 0, 0, 1],
        "user": ["u", "v", "u", "u"],
        "shop": ["x", "y", "z", "x"],
        "tags": ["p", "q", "q", "q"],
        "age": [1.0, 2.0, 3.0, 6.0],
    }
)


def made() -> tuple[CTRModel, Encoder, Layout]:
    encoder = Encoder.fit_frame(CARD, ROWS)
    config = ModelConfig.model_validate({"embedding_dim": 2, "nodes": {"fm": {"layer": "fm"}}})
    model = CTRModel(
        fields=field_specs(CARD, encoder.num_embeddings), dense=CARD.dense, config=config, seed=5
    )
    return model.eval(), encoder, layout_of(CARD)


def table(model: CTRModel, field: str) -> torch.Tensor:
    state = model.export_state()
    return state[f"embeddings.tables.fields.embedding_bags.{field}.weight"].double()


def test_counts_weigh_the_values_of_a_vocabulary_and_hashed_ones_weigh_alike() -> None:
    model, encoder, layout = made()
    found = mean_of_vocabularies(model, encoder, layout).sources["fields"][0]
    # u (id 1) in three of four rows, q (id 1) in three; three buckets; age is 0 when standardised.
    user, tags, shop = (table(model, name) for name in ("user", "tags", "shop"))
    names = model.embeddings.field_names
    expected = {
        "user": 0.75 * user[1] + 0.25 * user[2],
        "tags": 0.75 * tags[1] + 0.25 * tags[2],
        "shop": shop[1:].mean(dim=0),
        "age": torch.zeros(2).double(),
    }
    for place, name in enumerate(names):
        torch.testing.assert_close(found[place], expected[name], atol=1e-9, rtol=1e-6)


def test_a_mean_row_is_that_of_all_batches_whatever_their_sizes() -> None:
    x = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(1))
    cut = mean_of_rows([{"fields": x[:7]}, {"fields": x[7:]}])
    torch.testing.assert_close(cut.sources["fields"], x.double().mean(dim=0, keepdim=True))
    again = Baseline.from_json(cut.to_json())
    assert torch.equal(again.sources["fields"], cut.sources["fields"])


def test_an_unseen_row_is_row_zero_of_every_table() -> None:
    model, _, layout = made()
    found = unseen(model, layout).sources["fields"][0]
    for place, name in enumerate(model.embeddings.field_names):
        wanted = torch.zeros(2).double() if name == "age" else table(model, name)[0]
        np.testing.assert_allclose(found[place], wanted)
