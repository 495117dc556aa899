"""Objects of a store: put, listed, read."""

from pathlib import Path

from recsys_had.data.files import open_bytes
from recsys_had.storage import AnyPath
from recsys_had.store_path import StorePath


def put(path: StorePath, content: bytes, tmp_path: Path) -> StorePath:
    (tmp_path / "put").write_bytes(content)
    path.upload(tmp_path / "put")
    return path


def listed(folder: StorePath) -> list[str]:
    start = len(folder.key) + 1
    return sorted(path.key[start:] for path in folder.glob("**"))


def text_of(path: AnyPath) -> bytes:
    with open_bytes(path) as stream:
        return stream.read(1 << 40)
