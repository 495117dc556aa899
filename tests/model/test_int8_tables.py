"""8-bit tables: what they hold, within half a step, and what is looked up in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_had.batch import Bags
from recsys_had.config import ModelConfig
from recsys_had.errors import ConfigError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.int8_tables import Int8Tables, quantise_tables, quantised
from recsys_had.model.plain_tables import PLAIN, PlainTables
from recsys_had.model.tables import FieldSpec
from tests.model.test_plain_tables import FIELDS, SINGLE, model_of, rows_of, single_rows


def by_hand(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each number as the nearest of 256 steps from its row's least to its largest, and the step."""
    found, steps = np.empty(rows.shape), np.empty(len(rows))
    for row, numbers in enumerate(rows.astype(np.float64)):
        least, steps[row] = numbers.min(), (numbers.max() - numbers.min()) / 255
        for column, number in enumerate(numbers):
            nearest = 0 if steps[row] == 0 else round((number - least) / steps[row])
            found[row, column] = least + nearest * steps[row]
    return found, steps


def drawn(num_rows: int, width: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Rows of very different sizes, as frequent and rare values have.
    sizes = torch.logspace(-6, 3, num_rows).unsqueeze(1) if num_rows else torch.empty(0, 1)
    return sizes * (torch.randn(num_rows, width, generator=generator) + 1)


def unpacked(packed: torch.Tensor) -> np.ndarray:
    """Numbers of packed rows, from the bytes."""
    width = packed.shape[1] - 8
    beside = packed[:, width:].numpy().copy().view(np.float32).astype(np.float64)
    return packed[:, :width].numpy() * beside[:, :1] + beside[:, 1:]


@pytest.mark.parametrize("width", [3, 5, 16])
@pytest.mark.parametrize("half", [False, True])
def test_a_row_is_held_to_half_a_step_of_its_own(width: int, half: bool) -> None:
    rows = drawn(400, width)
    rows = rows.half() if half else rows
    expected, step = by_hand(rows.float().numpy())
    found = unpacked(quantised(rows))
    whole = rows.double().numpy()
    room = 1e-6 * np.abs(whole).max(axis=1, keepdims=True)
    assert (np.abs(found - whole) <= step[:, None] / 2 + room).all()
    # A number between two steps may be rounded to either; hardly any is.
    same = np.abs(found - expected) <= room
    assert same.mean() > 0.99
    # The bound is not loose: some numbers are as far off as they may be.
    assert (np.abs(found - whole) > 0.4 * step[:, None]).any()


def test_the_least_and_the_largest_number_are_the_ends_of_the_scale() -> None:
    packed = quantised(torch.tensor([[2.0, -3.0, 0.0], [7.0, 7.4, 8.0]]))
    # Row 0: steps of 5/255; 0 is 3 / (5/255) = 153 steps up.
    # Row 1: steps of 1/255; 7.4 is 0.4 * 255 = 102 steps up.
    assert packed[:, :3].tolist() == [[255, 0, 153], [0, 102, 255]]
    assert packed.shape == (2, 11) and packed.dtype == torch.uint8


def test_rows_of_one_number_repeated_are_held_exactly() -> None:
    rows = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [-3.3e-38, -3.3e-38, -3.3e-38]])
    np.testing.assert_array_equal(unpacked(quantised(rows)), rows.double().numpy())


def test_a_range_too_small_for_a_scale_is_none() -> None:
    rows = torch.tensor([[0.0, 1e-45, 2e-45]])
    assert np.abs(unpacked(quantised(rows))).max() <= 3e-45


def test_no_row_and_one_row_are_packed() -> None:
    assert quantised(torch.empty(0, 4)).shape == (0, 12)
    assert quantised(torch.ones(1, 4)).shape == (1, 12)


@pytest.mark.parametrize("row", [[0.0, float("nan"), 1.0], [1.0, float("inf"), 0.0], [-3e38, 3e38]])
def test_numbers_that_are_not_finite_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^rows: must hold finite numbers whose range is finite"):
        quantised(torch.tensor([row]))


def eight_bit(model: CTRModel) -> CTRModel:
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    quantise_tables(model.embeddings)
    return model


@pytest.mark.parametrize("size", [0, 1, 7, 4096])
def test_every_set_is_looked_up_as_plain_tables_of_the_same_numbers_are(size: int) -> None:
    """Of several widths, values and kinds of fields, a managed one among them."""
    batch = rows_of(size, longest=0 if size == 1 else 5).to_batch()
    found = eight_bit(model_of(PLAIN)).embeddings
    plain = model_of(PLAIN)
    with torch.no_grad():
        for number, (name, weight) in enumerate(plain.named_parameters()):
            generator = torch.Generator().manual_seed(number)
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
            if name.startswith("embeddings.tables.") and weight.shape[1] > 2:
                weight.copy_(torch.from_numpy(by_hand(weight.numpy())[0]))
    with torch.inference_mode():
        looked_up, expected = found(batch), plain.embeddings(batch)
        assert list(looked_up) == list(expected) == ["linear", "ffm", "fields", "some"]
        for name, rows in expected.items():
            assert looked_up[name].shape == rows.shape and looked_up[name].dtype == torch.float32
            torch.testing.assert_close(looked_up[name], rows, rtol=0, atol=1e-6)
    kinds = {name: type(tables) for name, tables in found.tables.items()}
    assert kinds == {"linear": PlainTables, "ffm": Int8Tables, "fields": Int8Tables,
                     "some": Int8Tables}  # fmt: skip


def test_a_row_is_the_same_to_the_bit_whatever_is_looked_up_with_it() -> None:
    model = eight_bit(model_of(PLAIN))
    rows = rows_of(300)
    with torch.inference_mode():
        whole = model.embeddings(rows.to_batch())
        for first, last in ((0, 1), (5, 12), (100, 300)):
            some = model.embeddings(rows.take(np.arange(first, last)).to_batch())
            for name, found in some.items():
                assert torch.equal(found, whole[name][first:last]), name


def test_rows_that_only_fill_up_a_batch_are_left_out() -> None:
    model, rows = eight_bit(model_of(PLAIN)), rows_of(5)
    padded = model.embeddings(rows.to_batch(sparse_rows=9))
    for name, expected in model.embeddings(rows.to_batch()).items():
        assert torch.equal(padded[name], expected)


def test_half_precision_tables_are_packed_as_they_are() -> None:
    config = ModelConfig.model_validate({"embedding_dim": 6, "nodes": {"fm": {"layer": "fm"}}})
    fields = [FieldSpec("A", 20), FieldSpec("B", 1)]
    half = CTRModel(
        fields=fields, dense=[], config=config, tables_on="meta", table_type=torch.float16
    )
    state = CTRModel(fields=fields, dense=[], config=config, seed=2).export_state()
    state = {name: w.half() if ".tables." in name else w for name, w in state.items()}
    half.import_state(state)
    quantise_tables(half.eval().embeddings)
    tables = half.embeddings.tables["fields"]
    assert isinstance(tables, Int8Tables) and tables.sizes.tolist() == [20, 1]
    stored = torch.cat([w for name, w in state.items() if ".tables." in name])
    assert torch.equal(tables.packed, quantised(stored))


def test_the_float_tables_are_let_go() -> None:
    model = model_of(PLAIN)
    kept = [w.numel() for name, w in model.named_parameters() if ".tables." in name]
    quantise_tables(model.embeddings)
    left = {name: w for name, w in model.named_parameters() if ".tables." in name}
    # Those of the linear part, one number a row.
    assert len(left) == len(FIELDS) < len(kept) and all(w.shape[1] == 1 for w in left.values())
    assert not any("packed" in name for name in model.state_dict())


@pytest.mark.parametrize("strange", [{0: 50}, {1: 40}, {2: 30}, {1: -1}])
def test_an_id_of_no_row_is_never_that_of_another_table(strange: dict[int, int]) -> None:
    config = ModelConfig.model_validate({"embedding_dim": 6, "nodes": {"fm": {"layer": "fm"}}})
    for is_multi in (False, True):
        fields = [*SINGLE, *([FieldSpec("tags", 9, is_multi=True)] if is_multi else [])]
        model = CTRModel(fields=fields, dense=[], config=config)
        quantise_tables(model.embeddings)
        batch = single_rows(5, strange)
        if is_multi:
            sizes, ids = [5, 5, 5, 0], batch.sparse.values()
            lengths = torch.cat([batch.sparse.lengths(), torch.zeros(5, dtype=torch.int64)])
            batch = replace(batch, sparse=Bags(["A", "B", "C", "tags"], ids, lengths, sizes=sizes))
        with pytest.raises(IndexError, match=r"^ids: must be those of their tables\.$"):
            model(batch)


def test_what_has_no_8_bit_form_is_refused() -> None:
    narrow = ModelConfig.model_validate({"nodes": {"lr": {"layer": "linear"}}})
    model = CTRModel(fields=FIELDS, dense=[], config=narrow)
    told = r"^--tables int8: no table of the model has 3 columns or more.* Leave the option out\.$"
    with pytest.raises(ConfigError, match=told):
        quantise_tables(model.embeddings)
    model = model_of(PLAIN)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights["embeddings.tables.fields.embedding_bags.field type.weight"][3, 2] = torch.nan
    with pytest.raises(ConfigError, match=r"^--tables int8: table fields\.type holds a row whose"):
        quantise_tables(model.embeddings)


def test_a_model_without_tables_is_refused() -> None:
    config = ModelConfig.model_validate({"nodes": {"fm": {"layer": "fm"}}})
    model = CTRModel(fields=[], dense=["x", "y"], config=config)
    with pytest.raises(ConfigError, match=r"^--tables int8: no table of the model"):
        quantise_tables(model.embeddings)
