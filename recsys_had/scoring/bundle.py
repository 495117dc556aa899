"""A bundle: a run folder without what scoring does not need."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys_had.errors import CheckpointError, DataError
from recsys_had.output import OutputFolder
from recsys_had.run_folder import RunFolder, sealed
from recsys_had.whole_files import file_digest

_MANIFEST = "manifest.json"
_NEEDED = ("experiment.yaml", "weights.safetensors")


def write_bundle(run: RunFolder, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Copies what scoring needs: experiment, weights, encoder and what was added to the run.

    The copy is a run folder as any other; ``bundle_of`` in its manifest is the digest of the run
    it is of, and its own digest is another, for it holds other files.

    Args:
        run: the trained model.
        out: folder to write.
        overwrite: replace a bundle that ``out`` holds.

    Returns:
        The bundle's manifest.

    Raises:
        CheckpointError: a file was changed since the run was opened.
        DataError: ``out`` holds something this may not replace.
    """
    _refuse_what_is_no_bundle(out)
    with OutputFolder(out, marker=_MANIFEST, overwrite=overwrite) as folder:
        files = {}
        for name in _needed(run):
            copy = folder.stage / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, copy)
            files[name] = run.manifest["files"][name]
            if file_digest(copy) != files[name]:
                raise CheckpointError(f"{run.path}/{name}: was changed while it was copied.")
        first = run.manifest.get("bundle_of", run.manifest["digest"])
        manifest = sealed({**run.manifest, "files": files, "bundle_of": first})
        (folder.stage / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        folder.publish()
    return manifest


def _needed(run: RunFolder) -> Iterator[str]:
    added = set(run.manifest.get("additions", {}).values())
    for name in run.manifest["files"]:
        if name in _NEEDED or name in added or name.startswith("encoder/"):
            yield name


def _refuse_what_is_no_bundle(out: Path) -> None:
    # A bundle is a run folder: --overwrite must cost nobody the run of a training.
    try:
        found = json.loads((out / _MANIFEST).read_text())
        is_bundle = isinstance(found, dict) and "bundle_of" in found
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError):
        is_bundle = False
    if not is_bundle:
        raise DataError(f"{out}: holds a result that is no bundle. Choose another folder.")
