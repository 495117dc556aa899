"""An encoder as files: card, statistics, vocabularies and side tables, guarded by its digest."""

import json
from pathlib import Path

from recsys_had.data.encode import Encoder, Ids, ids_without_vocabulary
from recsys_had.data.lookups import SideTable
from recsys_had.data.quantiles import QuantileBins
from recsys_had.data.ranges import Range
from recsys_had.data.statistics import Scale
from recsys_had.data.vocabulary import Vocabulary, VocabularyFile
from recsys_had.errors import CheckpointError, RecsysHadError
from recsys_had.schema import DatasetCard
from recsys_had.storage import AnyPath


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Writes an encoder into a folder; vocabularies that lie in files lie there already."""
    for name in ("vocab", "lookups"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(encoder.card.model_dump_json(indent=2) + "\n")
    for name, ids in encoder.ids.items():
        if isinstance(ids, Vocabulary):
            ids.save(folder / "vocab" / f"{name}.parquet")
    for name, table in encoder.lookups.items():
        table.save(folder / "lookups" / f"{name}.parquet")
    content = {"digest": encoder.digest, **encoder.content}
    (folder / "dense.json").write_text(json.dumps(content, indent=2) + "\n")


def load_encoder(folder: AnyPath, *, in_memory: bool = True) -> Encoder:
    """Reads what :func:`save_encoder` wrote.

    Args:
        folder: where it was written.
        in_memory: whether vocabularies are held. Else they are gone through once, and their
            fields encode nothing.

    Raises:
        CheckpointError: a file is missing, unreadable or was changed.
    """
    try:
        card = DatasetCard.model_validate_json((folder / "card.json").read_text())
        content = json.loads((folder / "dense.json").read_text())
        digest = content["digest"]
        scales = {name: Scale(**scale) for name, scale in content["scales"].items()}
        ranges = {name: Range(*ends) for name, ends in content.get("ranges", {}).items()}
        bins = {name: QuantileBins(edges) for name, edges in content.get("bins", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise CheckpointError(
            f"{folder}: is not an encoder: card.json or dense.json cannot be read: {cause}."
        ) from cause
    read = Vocabulary.load if in_memory else VocabularyFile.open
    ids: dict[str, Ids] = {
        field.name: ids_without_vocabulary(field)
        or read(folder / "vocab" / f"{field.name}.parquet")
        for field in card.fields
    }
    try:
        lookups = {
            name: SideTable.load(lookup, folder / "lookups" / f"{name}.parquet")
            for name, lookup in card.lookups.items()
        }
    except RecsysHadError as cause:
        raise CheckpointError(str(cause)) from cause
    encoder = Encoder(card, ids=ids, scales=scales, lookups=lookups, ranges=ranges, bins=bins)
    if encoder.digest != digest:
        known = content.get("parts", {})
        parts = encoder.content["parts"].items()
        changed = [name for name, part in parts if part != known.get(name)]
        raise CheckpointError(
            f"{folder}: was changed after it was written: "
            f"{', '.join(changed or ['dense.json'])}. Restore it or ingest again."
        )
    return encoder
