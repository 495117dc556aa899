"""Tensors as the pages of their file: the same as safetensors reads, and in one storage."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recsys_had.mapped_tensors import mapped_tensors


def test_every_type_and_shape_is_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    generator = torch.Generator().manual_seed(0)
    given = {
        f"{dtype}-{shape}": (100 * torch.randn(shape, generator=generator)).to(dtype)
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
        for shape in ((3, 5), (7,), (), (0, 4))
    }
    save_file(given, path)
    found, expected = mapped_tensors(path), load_file(path)
    assert set(found) == set(expected) == set(given)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
        assert torch.equal(found[name], given[name]), name


def test_tensors_of_one_type_lie_in_one_storage(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(5, 4)}, tmp_path / "t.safetensors")
    found = mapped_tensors(tmp_path / "t.safetensors")
    assert found["b"].storage_offset() - found["a"].storage_offset() == 3 * 4


def test_what_is_written_to_one_does_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file({"a": torch.ones(3)}, path)
    before = path.read_bytes()
    mapped_tensors(path)["a"].zero_()
    assert path.read_bytes() == before
    assert mapped_tensors(path)["a"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("damage", ["cut", "empty", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.safetensors"
    save_file({"a": torch.ones(300)}, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-1], "empty": b"", "header": b"\xff" * 8 + whole[8:]}[damage])
    with pytest.raises(SafetensorError):
        mapped_tensors(path)
