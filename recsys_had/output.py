"""Output folders: work in progress stays apart, a finished result appears at once.

Work lives in ``OUT/.work``. What is finished is moved to ``OUT`` with the marker file last, so
a folder with a marker is whole. A user's mistake removes the work; a kill, of a worker too, keeps
it, to be taken up again. Where the work holds a checkpoint, hours of somebody's time, nothing but
``overwrite`` removes it.

Of a folder in an object store the work lives on this machine, in the folder for temporary files,
and what is finished is uploaded, the marker last. The store has a claim from the beginning,
``OUT/.work``: by it whatever was uploaded without a marker is known as ours, on any machine.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from recsys_had.errors import DataError, EngineError, RecsysHadError, StoreError, WorkerLostError
from recsys_had.folder_lock import FolderLock
from recsys_had.storage import AnyPath
from recsys_had.store_path import StorePath

_CLAIM = ".work"
_FINGERPRINT = "fingerprint.json"
_DROPPED = {"dropped": True}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that no space is left on the device."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        # Polars and Arrow report the operating system's number in the text alone.
        if any(f"os error {number}" in str(seen) for number in _FULL) or "[errno 28]" in str(seen):
            return True
        seen = seen.__cause__
    return False


class OutputFolder:
    """An output folder that is either whole or plainly unfinished.

    Args:
        path: the folder, on a disk or in a store.
        marker: name of the file that makes the folder whole; it is moved last.
        overwrite: replace a finished result, and drop unfinished work.
        resume: take up unfinished work of the same fingerprint.
        fingerprint: what the work depends on; work of another fingerprint is dropped.
        keep_unfinished: refuse, rather than drop, unfinished work unless told to resume or
            to overwrite it.
        checkpoint: name of what, lying in :attr:`work`, makes it worth keeping whatever goes
            wrong.

    Raises:
        DataError: the folder holds something this command may not replace, or another command is
            writing to it.
        StoreError: the store may not be written to, or does not answer.

    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "result"
    >>> with OutputFolder(out, marker="manifest.json") as folder:
    ...     _ = (folder.stage / "manifest.json").write_text("{}")
    ...     folder.publish()
    >>> sorted(entry.name for entry in out.iterdir())
    ['manifest.json']
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        marker: str,
        overwrite: bool = False,
        resume: bool = False,
        fingerprint: dict[str, Any] | None = None,
        keep_unfinished: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        self.path = path
        self.marker = marker
        self.resumed = False
        self._existed = path.exists()
        self._checkpoint = checkpoint
        self._claim = path / _CLAIM
        self._root = path / _CLAIM if isinstance(path, Path) else _work_elsewhere(path)
        self._fingerprint = json.loads(json.dumps(fingerprint or {}))
        self._refuse_foreign(overwrite=overwrite)
        # Beside a store's work, that is removed with the work, and begun anew.
        locked = path if isinstance(path, Path) else self._root.with_name(self._root.name + ".lock")
        self._lock = FolderLock(locked, told=str(path))
        try:
            # Again: another command may have finished between the look and the lock.
            self._refuse_foreign(overwrite=overwrite)
            self._take_up(resume and not overwrite, keep=keep_unfinished and not overwrite)
            self._begin()
        except BaseException:
            self._lock.release()
            raise

    @property
    def stage(self) -> Path:
        """What is put here is moved to the output folder by :meth:`publish`."""
        return self._root / "publish"

    @property
    def work(self) -> Path:
        """State that survives a kill and is dropped with success."""
        return self._root / "state"

    def publish(self) -> None:
        """Moves or uploads the staged files into place, the marker last, and drops the work.

        Raises:
            StoreError: not all could be uploaded; the work is kept.
        """
        if not (self.stage / self.marker).is_file():
            raise ValueError(f"publish: the marker {self.marker} was not staged.")
        # Without its marker the folder is not whole: it goes first and comes last.
        (self.path / self.marker).unlink(missing_ok=True)
        for old in self.path.iterdir():
            if old != self._claim:
                _remove(old)
        entries = sorted(self.stage.iterdir(), key=lambda entry: entry.name == self.marker)
        for entry in entries:
            place = self.path / entry.name
            if isinstance(place, Path):
                entry.rename(place)
            else:
                place.upload(entry)
        self._drop_work()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._clean_up(error)
        finally:
            self._lock.release()

    def _clean_up(self, error: BaseException | None) -> None:
        if error is None:
            return
        full = is_disk_full(error)
        kept = self._checkpoint is not None and self._is_worth_keeping()
        useless = self._checkpoint is not None and not kept
        # A store that does not answer, memory or a cluster may be there the next time.
        passing = isinstance(error, StoreError | WorkerLostError | EngineError)
        mistaken = isinstance(error, RecsysHadError) and not passing
        if full or useless or mistaken:
            if kept:
                shutil.rmtree(self.stage, ignore_errors=True)
            else:
                self._drop_work()
            self._drop_if_empty()
        if full and not isinstance(error, RecsysHadError):
            hint = (
                "Free some space and add --resume: the last checkpoint is kept."
                if kept
                else "Free some space or choose another folder; the unfinished work was removed."
            )
            raise DataError(
                f"{self._root}: writing failed. No space is left on the device. {hint}"
                if isinstance(self.path, StorePath)
                else f"{self.path}: writing failed. No space is left on the device. {hint}"
            ) from error

    def _take_up(self, resume: bool, *, keep: bool) -> None:
        if not self._root.exists():
            return
        if resume and _read_fingerprint(self._root) == self._fingerprint:
            self.resumed = True
        elif keep and self._is_worth_keeping():
            hint = "It was begun with other settings. Add" if resume else "Add --resume, or add"
            raise DataError(
                f"{self.path}: holds unfinished work. {hint} --overwrite to start again."
            )

    def _begin(self) -> None:
        try:
            if not self.resumed:
                self._drop_work()
            if isinstance(self._claim, StorePath):
                # Before hours of work: may it be written to?
                (self._claim / _FINGERPRINT).write_text(json.dumps(self._fingerprint))
            self.stage.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(parents=True, exist_ok=True)
            if not self.resumed:
                fresh = self._root / "fingerprint.tmp"
                fresh.write_text(json.dumps(self._fingerprint))
                fresh.rename(self._root / _FINGERPRINT)
        except OSError as cause:
            if not self.resumed:
                with suppress(OSError, RecsysHadError):
                    self._drop_work()
                    self._drop_if_empty()
            raise DataError(
                f"{self.path}: cannot be written: {cause.strerror}. Choose another folder."
                if isinstance(self.path, Path)
                else f"{self._root}: cannot be written: {cause.strerror}. Set TMPDIR to another "
                "folder."
            ) from cause

    def _is_worth_keeping(self) -> bool:
        if self._checkpoint is None:
            # Whoever was killed before he had noted his settings, or after he had begun to drop
            # everything, left nothing.
            return _read_fingerprint(self._root) not in (None, _DROPPED)
        return (self.work / self._checkpoint).exists()

    def _refuse_foreign(self, *, overwrite: bool) -> None:
        if not self.path.exists():
            try:
                if isinstance(self.path, Path):
                    self.path.mkdir(parents=True)
            except OSError as cause:
                raise DataError(f"{self.path}: cannot be made: {cause.strerror}.") from cause
            return
        if not self.path.is_dir():
            raise DataError(f"{self.path}: must be a folder. It is a file. Choose another path.")
        entries = [entry for entry in self.path.iterdir() if entry != self._claim]
        if not entries:
            return
        if not (self.path / self.marker).is_file():
            if _read_fingerprint(self._claim) is not None:
                # Ours, and stopped while it was moved into place.
                return
            raise DataError(
                f"{self.path}: the output folder is not empty and holds no {self.marker}, so it "
                "is not ours to replace. Choose another folder."
            )
        if not overwrite:
            raise DataError(
                f"{self.path}: the output folder holds a finished result. "
                "Add --overwrite to replace it, or choose another folder."
            )

    def _drop_if_empty(self) -> None:
        """Removes the folder where it was not there before and holds nothing."""
        if not self._existed and self.path.is_dir() and not any(self.path.iterdir()):
            _remove(self.path)

    def _drop_work(self) -> None:
        if isinstance(self._claim, StorePath):
            self._claim.remove_tree()
        if not self._root.exists():
            return
        # Its fingerprint, by which it is known as ours, goes last, and first fits nothing any more:
        # what a kill leaves of it is not taken up.
        note = self._root / _FINGERPRINT
        if note.exists():
            note.write_text(json.dumps(_DROPPED))
        for entry in self._root.iterdir():
            if entry != note:
                _remove(entry)
        shutil.rmtree(self._root)


class OutputFile:
    """A text file that is either whole or not there; refused before the work for it is done.

    Args:
        path: the file; the folders above it are made.
        suffix: how its name must end.
        overwrite: replace a file that is there.

    Raises:
        DataError: the name ends otherwise, or something stands in the way.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pages" / "a.html"
    >>> OutputFile(path, suffix=".html").write("<p>")
    >>> path.read_text()
    '<p>'
    """

    def __init__(self, path: Path, *, suffix: str, overwrite: bool = False) -> None:
        self._path = path
        if path.suffix != suffix:
            raise DataError(f"{path}: must end in {suffix}.")
        if path.is_dir():
            raise DataError(f"{path}: must be a file. It is a folder. Choose another path.")
        if path.exists() and not overwrite:
            raise DataError(
                f"{path}: the file is there already. Add --overwrite to replace it, or choose "
                "another name."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise DataError(f"{path.parent}: cannot be made: {cause.strerror}.") from cause

    def write(self, text: str) -> None:
        """Writes the whole file at once.

        Raises:
            DataError: it cannot be written.
        """
        unfinished = self._path.with_name(f".{self._path.name}.unfinished")
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self._path)
        except OSError as cause:
            unfinished.unlink(missing_ok=True)
            raise DataError(f"{self._path}: cannot be written: {cause.strerror}.") from cause


def refuse_other_kinds(out: AnyPath, marker: str, *, kind: str, told: str) -> None:
    """Refuses to replace a result of another kind, such as the very one that is read.

    Args:
        out: an output folder.
        marker: the file of JSON that makes it whole.
        kind: what its ``kind`` must be, where there is one.
        told: the kind in an error.

    Raises:
        DataError: it is another.
    """
    try:
        found = dict(json.loads((out / marker).read_text())).get("kind")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, TypeError):
        found = None
    if found != kind:
        raise DataError(f"{out}: holds a result that is no {told}. Choose another folder.")


def _read_fingerprint(work: AnyPath) -> Any:
    try:
        return json.loads((work / _FINGERPRINT).read_text())
    except (OSError, ValueError):
        return None


def _remove(entry: AnyPath) -> None:
    if isinstance(entry, StorePath):
        entry.remove_tree() if entry.is_dir() else entry.unlink()
    elif entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _work_elsewhere(path: StorePath) -> Path:
    """Where work on a store's folder lives, the same for the same user and URL.

    Raises:
        DataError: it cannot be made, or is not this user's own.
    """
    own = Path(tempfile.gettempdir()) / f"recsys_had-{os.geteuid()}"
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as cause:
        raise DataError(f"{own}: cannot be made: {cause.strerror}. Set TMPDIR.") from cause
    if own.is_symlink() or own.stat().st_uid != os.geteuid():
        raise DataError(f"{own}: must be this user's own folder. Set TMPDIR to another place.")
    return own / f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
