"""Tensors of a safetensors file as the file's own pages, all in one storage."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def mapped_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name; memory is taken page by page as they are read.

    What is written to one of them stays in this process. Tensors that lie beside each other in the
    file do so in memory, which safetensors' own reader, whose mapping it is otherwise, does not
    let anyone make use of.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is no such file, or is cut short.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> path = Path(tempfile.mkdtemp()) / "t.safetensors"
    >>> save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, path)
    >>> found = mapped_tensors(path)
    >>> a, b = (found[name].untyped_storage().data_ptr() for name in "ab")
    >>> found["a"].tolist(), a == b
    ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], True)
    """
    with safe_open(path, framework="pt") as saved:
        # Its reader has checked the header that is taken at its word below.
        like = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(header_bytes))
    storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
    found = {}
    for name, tensor in like.items():
        first = 8 + header_bytes + header[name]["data_offsets"][0]
        if first % tensor.element_size():
            found[name] = tensor
        else:
            at = first // tensor.element_size()
            found[name] = tensor.new_empty(0).set_(storage, at, tensor.shape)
    return found
