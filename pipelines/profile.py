"""``recsys-had profile``: encoded rows in, one HTML page of figures and pictures out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, is_first_rank, local_path, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.profile import Profile


@recsys_had_command("profile")
@click.argument("data", type=local_path)
@click.option("--out", required=True, type=local_path, help="The page: a file .html.")
@click.option("--overwrite", is_flag=True, help="Replace the file OUT.")
def command(data: Path, out: Path, overwrite: bool) -> Result:
    """Look at the encoded rows of DATA: one HTML page that needs no other file.

    Rows and click rate by split and over time; each column's values, coverage and missing share;
    columns that tell the label suspiciously well.
    """
    content, lines = write_profile(data, out=out, overwrite=overwrite)
    return Result(content, "\n".join(lines))


def write_profile(
    data: Path, *, out: Path, overwrite: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Writes the page; returns what ``--json`` prints, and lines for people."""
    from tqdm import tqdm

    from recsys_had.data.folder import DataFolder
    from recsys_had.output import OutputFile
    from recsys_had.profile import page, profile

    target = OutputFile(out, suffix=".html", overwrite=overwrite)
    folder = DataFolder.open(data)
    card = folder.card
    columns = len(card.fields) + len(card.dense) + len(card.vectors)
    with tqdm(
        total=columns,
        desc="profile",
        unit=" columns",
        disable=not (is_first_rank() and os.isatty(2)),
    ) as bar:
        found = profile(folder, on_column=lambda name: _advance(bar))
    target.write(page(found))
    return {**found.as_json(), "page": str(out)}, [*_lines(found), f"page: {out}"]


def _advance(bar: Any) -> None:
    bar.update(1)


def _lines(found: "Profile") -> list[str]:
    from recsys_had.profile.words import percent

    rates = ", ".join(
        f"{split} {rate.rows:,} rows, {percent(rate.click_rate)} clicked"
        for split, rate in found.splits.items()
    )
    return [f"{found.dataset}: {rates}", *found.findings]
