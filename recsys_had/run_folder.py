"""RunFolder: a trained model that stands alone, each file of it guarded by a digest."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from recsys_had.config import Experiment
from recsys_had.data.folder import DataFolder
from recsys_had.errors import CheckpointError, RecsysHadError
from recsys_had.experiment_file import load_experiment
from recsys_had.folder_lock import FolderLock
from recsys_had.mapped_tensors import mapped_tensors
from recsys_had.model.ctr import weights_digest
from recsys_had.schema import DatasetCard
from recsys_had.store_path import StorePath
from recsys_had.versions import library_versions
from recsys_had.whole_files import file_digest, write_whole

# What a data folder lends to a run, so that the run encodes raw rows by itself.
_ENCODER_PARTS = ("card.json", "dense.json", "vocab", "lookups")


@dataclass(frozen=True)
class _Addition:
    """A file that is added to a run, under a name that its content gives it."""

    text: str
    digest: str
    file: str

    @classmethod
    def of(cls, name: str, text: str, *, suffix: str = ".json") -> "_Addition":
        digest = _digest_of(text)
        return cls(text, digest, f"{name}-{digest[:16]}{suffix}")


@dataclass(frozen=True)
class RunFolder:
    """A run folder whose files were found as its manifest lists them.

    Args:
        path: the folder.
        manifest: its manifest.json.
        experiment: the resolved experiment.
        card: the dataset card the encoder was fitted with.
        weights_stamp: which file the weights were, and when it was last written to.
    """

    path: Path
    manifest: dict[str, Any]
    experiment: Experiment
    card: DatasetCard
    weights_stamp: tuple[int, int, int] | None = None

    @property
    def encoder_path(self) -> Path:
        """Card, vocabularies and statistics."""
        return self.path / "encoder"

    def weights(self) -> dict[str, Tensor]:
        """All weights and buffers, as the pages of their file.

        Raises:
            CheckpointError: the file cannot be read, or is not what was saved.
        """
        try:
            return mapped_tensors(self.path / "weights.safetensors")
        except (OSError, SafetensorError) as cause:
            raise CheckpointError(
                f"{self.path}/weights.safetensors: cannot be read: {cause}."
            ) from cause

    def addition(self, name: str) -> str | None:
        """The text of what was added to the run after its training, None where nothing was.

        Args:
            name: what it was added as.

        Raises:
            CheckpointError: it is not what it was when the run was opened.
        """
        file = self.manifest.get("additions", {}).get(name)
        if file is None:
            return None
        text: str | None
        try:
            text = (self.path / str(file)).read_text()
        except (OSError, UnicodeDecodeError):
            text = None
        if text is None or _digest_of(text) != self.manifest["files"].get(file):
            raise CheckpointError(
                f"{self.path}/{file}: was changed while the run was used. Run the command again."
            )
        return text

    def require_changeable(self) -> None:
        """Refuses the copy of a run that MLflow keeps as a model: what is registered stays.

        Whoever works long before he adds something asks first.

        Raises:
            CheckpointError: the run is such a copy.
        """
        # MLflow lays a model's files into artifacts/NAME beside its MLmodel.
        if any((folder / "MLmodel").is_file() for folder in self.path.resolve().parents[:2]):
            raise CheckpointError(
                f"{self.path}: is the copy of a run that MLflow keeps as a model, and stays what "
                "was logged. Give the run folder that `recsys-had train` wrote; with what is added "
                "to it, it is logged as a new model."
            )

    def add(
        self, name: str, text: str | Callable[[str | None], str], *, suffix: str = ".json"
    ) -> "RunFolder":
        """Adds a file to a finished run, or puts it in the place of an earlier one.

        The run is whole at every moment: before, it is as it was, and after, its manifest lists
        the file under a digest of its own.

        Args:
            name: what it is added as: one word.
            text: the file's content; or what makes it of the content before, None where there is
                none, and is called while nobody else writes.
            suffix: how the file's name ends.

        Raises:
            CheckpointError: the folder cannot be written, is MLflow's, or holds another run
                meanwhile.
            DataError: another command is writing to it.

        Returns:
            The run with it.
        """
        made = text if callable(text) else lambda before: text
        return self._replace(name, lambda before: _Addition.of(name, made(before), suffix=suffix))

    def drop(self, name: str) -> "RunFolder":
        """Takes away what was added to the run; a run without it stays as it is.

        Args:
            name: what it was added as.

        Raises:
            CheckpointError: the folder cannot be written, is MLflow's, or holds another run
                meanwhile.
            DataError: another command is writing to it.

        Returns:
            The run without it.
        """
        return self._replace(name, lambda before: None)

    def _replace(self, name: str, make: "Callable[[str | None], _Addition | None]") -> "RunFolder":
        self.require_changeable()
        lock = FolderLock(self.path, told=str(self.path))
        try:
            # Not this object's own: somebody may have added something else meanwhile.
            manifest = json.loads((self.path / "manifest.json").read_text())
            self._require_same_model(manifest)
            fresh = make(replace(self, manifest=manifest).addition(name))
            if fresh is not None:
                write_whole(self.path / fresh.file, fresh.text)
            before = manifest.get("additions", {}).get(name)
            files = {k: v for k, v in manifest["files"].items() if k != before}
            additions = {k: v for k, v in manifest.get("additions", {}).items() if k != name}
            if fresh is not None:
                files[fresh.file], additions[name] = fresh.digest, fresh.file
            manifest |= {"files": files, "additions": additions}
            manifest = sealed(manifest)
            write_whole(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")
            if before is not None and before not in files:
                (self.path / before).unlink(missing_ok=True)
        except OSError as cause:
            raise CheckpointError(f"{self.path}: cannot be written: {cause.strerror}.") from cause
        finally:
            lock.release()
        return RunFolder.open(self.path)

    def require_unchanged(self) -> None:
        """Asks that the folder has held this run ever since it was opened.

        Whoever replaces a run takes its manifest away first and gives the new one last.

        Raises:
            CheckpointError: it holds another run, or this one with another addition.
        """
        try:
            found = json.loads((self.path / "manifest.json").read_text())["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != self.manifest["digest"]:
            raise CheckpointError(
                f"{self.path}: was changed while it was read. Run the command again."
            )

    def require_unchanged_weights(self) -> None:
        """Asks that nobody has written into the file of the weights since the run was opened.

        Its pages are the model's, so that scores may be of neither. Another file in its place,
        as whoever trains anew puts there, changes nothing.

        Raises:
            CheckpointError: somebody has.
        """
        opened, now = self.weights_stamp, _stamp(self.path / "weights.safetensors")
        if opened is not None and now is not None and opened[0] == now[0] and opened != now:
            raise CheckpointError(
                f"{self.path}/weights.safetensors: was written to while it was used. Restore it, "
                "and score again."
            )

    def _require_same_model(self, manifest: Mapping[str, Any]) -> None:
        """What was fitted to one model must not become part of another in its place.

        Raises:
            CheckpointError: the folder holds another one meanwhile.
        """
        for name in ("weights_digest", "vocabulary_digest"):
            if manifest.get(name) != self.manifest.get(name):
                raise CheckpointError(
                    f"{self.path}: holds another run than the one that was opened. Run the "
                    "command again."
                )

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Opens a run folder and checks every file it lists.

        Raises:
            CheckpointError: one line per file that is missing or changed.
        """
        if not (path / "manifest.json").is_file():
            raise CheckpointError(
                f"{path}: is not a run folder: manifest.json is missing. "
                "Give a folder that `recsys-had train` finished."
            )
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            files = dict(manifest["files"])
            kind = manifest["kind"]
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise CheckpointError(f"{path}/manifest.json: cannot be read: {cause}.") from cause
        if kind != "run":
            raise CheckpointError(f"{path}: is a {kind} folder. Give a run folder.")
        stamp = _stamp(path / "weights.safetensors")
        problems = []
        if manifest.get("digest") != _manifest_digest(manifest):
            problems.append(f"{path}/manifest.json: was changed after training.")
        for name, digest in files.items():
            try:
                changed = file_digest(path / name) != digest
            except FileNotFoundError:
                problems.append(f"{path}/{name}: is missing. Restore it or train again.")
                continue
            except OSError as cause:
                problems.append(f"{path}/{name}: cannot be read: {cause.strerror}.")
                continue
            if changed:
                problems.append(f"{path}/{name}: was changed after training. Restore it.")
        if problems:
            raise CheckpointError(problems)
        try:
            card = DatasetCard.model_validate_json((path / "encoder" / "card.json").read_text())
            # The card it names may have changed, or be gone.
            experiment = load_experiment(path / "experiment.yaml", vectors=card.vectors)
        except (RecsysHadError, ValueError, OSError) as cause:
            raise CheckpointError(f"{path}: cannot be read: {cause}") from cause
        if card.digest != manifest["card_digest"]:
            raise CheckpointError(f"{path}/encoder/card.json: does not match the manifest.")
        return cls(path, manifest, experiment, card, stamp)


def write_run_folder(
    stage: Path,
    *,
    experiment: Experiment,
    data: DataFolder,
    state: dict[str, Tensor],
    metrics: dict[str, Any],
    facts: dict[str, Any],
    additions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes everything a run folder holds; the manifest lists it with digests.

    Args:
        stage: folder to write into.
        experiment: the resolved experiment.
        data: the data folder trained on; its encoder is copied.
        state: all weights and buffers, whole and unpadded.
        metrics: content of metrics.json.
        facts: further entries of the manifest.
        additions: texts the run begins with, by name, as :meth:`RunFolder.add` would add them.

    Returns:
        The manifest.
    """
    (stage / "experiment.yaml").write_text(experiment.to_yaml())
    save_file(state, stage / "weights.safetensors")
    (stage / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    encoder = stage / "encoder"
    encoder.mkdir(exist_ok=True)
    for name in _ENCODER_PARTS:
        source = data.path / name
        if isinstance(source, StorePath):
            if source.exists():
                source.download(encoder / name)
        elif source.is_dir():
            shutil.copytree(source, encoder / name, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, encoder / name)
    added = {name: _Addition.of(name, text) for name, text in (additions or {}).items()}
    for addition in added.values():
        (stage / addition.file).write_text(addition.text)
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    # Whoever corrects scores needs the rate, and finds nothing else of the data in a run.
    sampling = {name: data.manifest[name] for name in ("sampling",) if name in data.manifest}
    manifest: dict[str, Any] = {
        "kind": "run",
        "dataset": data.card.name,
        "card_digest": data.card.digest,
        "vocabulary_digest": data.manifest["vocabulary_digest"],
        "weights_digest": weights_digest(state),
        "num_embeddings": data.num_embeddings,
        **sampling,
        **facts,
        **({"additions": {name: each.file for name, each in added.items()}} if added else {}),
        "versions": library_versions(),
        "files": {path.relative_to(stage).as_posix(): file_digest(path) for path in files},
    }
    manifest = sealed(manifest)
    (stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the digest of its own content, without which no run folder is opened.

    >>> sorted(sealed({"kind": "run"}))
    ['digest', 'kind']
    """
    return {**manifest, "digest": _manifest_digest(manifest)}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Which file it is, its size and its time; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest_digest(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
