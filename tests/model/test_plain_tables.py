"""Plain torch tables: what TorchRec's give, to the bit, and the same names of weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recsys_had.batch import Bags, Batch, EncodedRows, Ragged
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.layout import Layout
from recsys_had.mapped_tensors import mapped_tensors
from recsys_had.model.ctr import CTRModel
from recsys_had.model.plain_tables import PLAIN, PlainTables
from recsys_had.model.tables import FieldSpec, TableBackend
from recsys_had.model.torchrec_tables import TORCHREC, keyed_jagged

LAYOUT = Layout(
    ("A", "tags", "type", "user"),
    multi=frozenset({"tags"}),
    dense=("price",),
    vectors={"image": 3},
    managed=frozenset({"user"}),
)
FIELDS = [
    FieldSpec("A", 50),
    FieldSpec("tags", 40, is_multi=True),
    FieldSpec("type", 30),
    FieldSpec("user", 9, admit_after=1),
]
MODEL = ModelConfig.model_validate(
    {
        # Not a whole group of columns: TorchRec's tables are padded to 8.
        "embedding_dim": 6,
        "tables": {"some": {"fields": ["tags", "A"], "dim": 3}},
        "nodes": {
            "linear": {"layer": "linear"},
            "ffm": {"layer": "ffm"},
            "cross": {"layer": "hadamard_cross", "inputs": ["fields"]},
            "deep": {"layer": "mlp", "inputs": ["some", "image"], "hidden_units": [8]},
        },
    }
)


def model_of(backend: TableBackend, *, seed: int = 3, tables_on: str = "cpu") -> CTRModel:
    model = CTRModel(
        fields=FIELDS,
        dense=["price"],
        config=MODEL,
        vectors=LAYOUT.vectors,
        seed=seed,
        backend=backend,
        tables_on=tables_on,
    )
    rows = model.embeddings.managed_fields["user"]
    rows.admit(torch.tensor([700, 800, 900]), step=1)
    return model.eval()


def rows_of(size: int, *, longest: int = 5, seed: int = 0) -> EncodedRows:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, longest + 1, size)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    users = generator.choice([0, 700, 800, 900, 12345678901], size)
    ids = np.stack([generator.integers(0, 50, size), generator.integers(0, 30, size), users], 1)
    return EncodedRows(
        LAYOUT,
        np.arange(size),
        None,
        ids,
        {"tags": Ragged(offsets, generator.integers(0, 40, offsets[-1]))},
        generator.normal(size=(size, 1)).astype(np.float32),
        {"image": generator.normal(size=(size, 3)).astype(np.float32)},
    )


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_every_set_of_tables_and_the_logit_are_torchrecs_to_the_bit(size: int) -> None:
    plain, theirs = model_of(PLAIN), model_of(TORCHREC)
    batch = rows_of(size).to_batch()
    with torch.inference_mode():
        found, expected = plain.embeddings(batch), theirs.embeddings(batch)
        assert list(found) == list(expected) == ["linear", "ffm", "fields", "some"]
        for name, rows in expected.items():
            assert torch.equal(found[name], rows), name
        assert torch.equal(plain(batch), theirs(batch))


def test_fields_are_looked_up_as_loops_do() -> None:
    model = model_of(PLAIN)
    rows = rows_of(200)
    weights = model.export_state()
    managed = {0: 0, 700: 1, 800: 2, 900: 3}
    table = {
        name: weights[f"embeddings.tables.fields.embedding_bags.{stored}.weight"].double()
        for name, stored in (("A", "A"), ("tags", "tags"), ("type", "field type"), ("user", "user"))
    }
    found = model.embeddings(rows.to_batch())["fields"].double()
    for row in range(len(rows)):
        a, kind, user = rows.ids[row].tolist()
        held = rows.lists["tags"]
        tags = held.values[held.offsets[row] : held.offsets[row + 1]].tolist()
        mean = sum((table["tags"][tag] for tag in tags), torch.zeros(6).double())
        expected = torch.stack(
            [table["A"][a], mean / max(1, len(tags)), table["type"][kind],
             table["user"][managed.get(user, 0)],
             weights["embeddings.numeric.fields"][0].double() * float(rows.dense[row, 0])]
        )  # fmt: skip
        torch.testing.assert_close(found[row], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("longest", [0, 3])
def test_no_rows_and_no_values_are_looked_up(longest: int) -> None:
    plain, theirs = model_of(PLAIN), model_of(TORCHREC)
    for size in (0, 4):
        batch = rows_of(size, longest=longest).to_batch()
        assert plain.embeddings(batch)["fields"].shape == (size, 5, 6)
        if size:
            assert torch.equal(plain(batch), theirs(batch))


def test_rows_that_only_fill_up_a_batch_are_left_out() -> None:
    plain = model_of(PLAIN)
    rows = rows_of(5)
    padded = plain.embeddings(rows.to_batch(sparse_rows=9))
    for name, expected in plain.embeddings(rows.to_batch()).items():
        assert torch.equal(padded[name], expected)


def test_both_have_the_same_names_numbers_and_initial_weights() -> None:
    plain, theirs = model_of(PLAIN), model_of(TORCHREC)
    found, expected = plain.export_state(), theirs.export_state()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert plain.num_parameters() == theirs.num_parameters()
    assert sum(weight.numel() for weight in plain.parameters()) == plain.num_parameters()


def test_tables_on_meta_become_the_tensors_that_are_given() -> None:
    state = model_of(TORCHREC, seed=9).export_state()
    model = model_of(PLAIN, tables_on="meta")
    model.import_state(state)
    batch = rows_of(20).to_batch()
    assert torch.equal(model(batch), model_of(PLAIN, seed=9)(batch))
    own = dict(model.named_parameters())
    for name, weight in own.items():
        is_categorical = name.startswith("embeddings.tables.")
        assert (weight.data_ptr() == state[name].data_ptr()) == is_categorical, name


def test_tables_on_meta_refuse_another_shape_and_take_another_type() -> None:
    state = model_of(PLAIN).export_state()
    name = "embeddings.tables.fields.embedding_bags.A.weight"
    model = model_of(PLAIN, tables_on="meta")
    with pytest.raises(ValueError, match=rf"^{name}: must have shape \(50, 6\); got \(49, 6\)\.$"):
        model.import_state({**state, name: state[name][:49]})
    model.import_state({**state, name: state[name].half()})
    assert dict(model.named_parameters())[name].dtype == torch.float32


SINGLE = [FieldSpec("A", 50), FieldSpec("B", 40), FieldSpec("C", 30)]
PLAIN_MODEL = ModelConfig.model_validate(
    {
        "embedding_dim": 6,
        "tables": {"some": {"fields": ["C", "A"], "dim": 5}},
        "nodes": {"linear": {"layer": "linear"}, "fm": {"layer": "fm"},
                  "deep": {"layer": "mlp", "inputs": ["some"], "hidden_units": [8]}},
    }
)  # fmt: skip


def single_model(path: Path | None) -> CTRModel:
    """A model of single-valued fields; with a path its tables are the pages of that file."""
    on = "cpu" if path is None else "meta"
    model = CTRModel(fields=SINGLE, dense=[], config=PLAIN_MODEL, seed=4, tables_on=on).eval()
    if path is not None:
        save_file(single_model(None).export_state(), path)
        model.import_state(mapped_tensors(path))
    return model


def single_rows(size: int, strange: dict[int, int] | None = None) -> Batch:
    ids = np.random.default_rng(2).integers(0, [50, 40, 30], (size, 3))
    for column, value in (strange or {}).items():
        ids[-1, column] = value
    dense = np.empty((size, 0), np.float32)
    return EncodedRows(Layout(("A", "B", "C")), np.arange(size), None, ids, {}, dense).to_batch()


@pytest.mark.parametrize("size", [0, 1, 7, 4096])
def test_tables_of_one_file_are_looked_up_as_one_to_the_bit(tmp_path: Path, size: int) -> None:
    apart, mapped = single_model(None), single_model(tmp_path / "w.safetensors")
    batch = single_rows(size)
    with torch.inference_mode():
        found, expected = mapped.embeddings(batch), apart.embeddings(batch)
        for name, rows in expected.items():
            tables, alone = mapped.embeddings.tables[name], apart.embeddings.tables[name]
            assert isinstance(tables, PlainTables) and isinstance(alone, PlainTables)
            assert tables.joint(SINGLE[:1]) is not None
            assert alone.joint(SINGLE[::2]) is None
            assert torch.equal(found[name], rows), name
        if size:
            assert torch.equal(mapped(batch), apart(batch))
    # And where something may be learned, one by one.
    for name, rows in mapped.embeddings(batch).items():
        assert torch.equal(rows, expected[name])


@pytest.mark.parametrize("strange", [{0: 50}, {1: 40}, {2: 30}, {1: -1}])
def test_an_id_of_no_row_is_never_that_of_another_table(
    tmp_path: Path, strange: dict[int, int]
) -> None:
    mapped = single_model(tmp_path / "w.safetensors")
    with torch.inference_mode(), pytest.raises(IndexError, match=r"^ids: must be those of their"):
        mapped(single_rows(5, strange))


def test_weights_that_are_given_later_take_the_place_of_the_files(tmp_path: Path) -> None:
    mapped = single_model(tmp_path / "w.safetensors")
    batch = single_rows(5)
    with torch.inference_mode():
        mapped(batch)
    other = CTRModel(fields=SINGLE, dense=[], config=PLAIN_MODEL, seed=8).eval()
    mapped.load_state_dict(other.state_dict(), assign=True)
    with torch.inference_mode():
        assert torch.equal(mapped(batch), other(batch))


def test_plain_tables_learn_what_torchrecs_learn() -> None:
    batch = rows_of(50).to_batch()
    grads = []
    for backend in (PLAIN, TORCHREC):
        model = model_of(backend)
        model(batch).square().sum().backward()
        grads.append(
            {
                name: model.without_padding(name, weight.grad)
                for name, weight in model.named_parameters()
                if weight.grad is not None
            }
        )
    assert set(grads[0]) == set(grads[1])
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad)


def test_tables_larger_than_memory_are_refused_with_the_largest() -> None:
    fields = [FieldSpec("A", 5), FieldSpec("B", 1 << 45)]
    config = ModelConfig.model_validate({"embedding_dim": 6, "nodes": {"fm": {"layer": "fm"}}})
    told = r"^model\.embedding_dim: .* of width 6 take .* GiB.* table is B with 35,184,372,088,832 "
    for backend in (PLAIN, TORCHREC):
        with pytest.raises(ConfigError, match=told):
            CTRModel(fields=fields, dense=[], config=config, backend=backend)


def test_bags_are_what_torchrec_takes_them_for() -> None:
    bags = rows_of(30).to_batch(sparse_rows=33).sparse
    theirs = keyed_jagged(bags)
    assert bags.keys() == theirs.keys()
    assert bags.offset_per_key() == theirs.offset_per_key()
    assert bags.stride() == theirs.stride() == 33
    for name in bags.keys():  # noqa: SIM118
        assert torch.equal(bags[name].values(), theirs[name].values())
        assert torch.equal(bags[name].lengths(), theirs[name].lengths())
    moved = bags.to(torch.device("cpu"))
    assert torch.equal(moved.values(), bags.values())
    assert moved.offset_per_key() == bags.offset_per_key()


def test_a_model_without_fields_has_no_table() -> None:
    config = ModelConfig.model_validate({"nodes": {"fm": {"layer": "fm"}}})
    model = CTRModel(fields=[], dense=["x", "y"], config=config)
    empty = Bags([], torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), sizes=[])
    batch = Batch(torch.ones(3, 2), empty, torch.empty(0), torch.arange(3))
    assert model(batch).shape == (3,)
