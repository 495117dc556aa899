"""What the documents point at is there."""

import re
from pathlib import Path

import pytest
import yaml

from recsys_had.interactions import names

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("datasets/*/*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
SOURCE = re.compile(r"`([\w.-]+(?:/[\w.-]+)+\.py)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_source_files_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    # Source files are named from the root, or from the package.
    places = [(document.parent, link) for link in LINK.findall(text)]
    missing = [name for folder, name in places if not (folder / name).exists()]
    for name in SOURCE.findall(text):
        if not any((ROOT / folder / name).exists() for folder in ("", "recsys_had")):
            missing.append(name)
    assert not missing


def test_there_are_documents_and_links_to_look_at() -> None:
    assert len(DOCUMENTS) > 12
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(LINK.findall(readme)) > 5


def test_the_readme_counts_what_there_is() -> None:
    definitions_on: dict[str, set[str]] = {}
    for path in ROOT.glob("configs/*.yaml"):
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
        on = definitions_on.setdefault(experiment["dataset"], set())
        on.add(experiment["model"]["definition"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", readme, re.MULTILINE))
    told = {name: int(count) for count, name in re.findall(r"(\d+) on (\w+)", rows["models"])}
    assert told == {name: len(definitions) for name, definitions in definitions_on.items()}
    assert rows["models"].startswith(f"{len([*ROOT.glob('configs/models/*.yaml')])} definitions ")
    assert rows["interactions"].startswith(f"{len(names())} in four domains")
    cards = {path.parent.name for path in ROOT.glob("datasets/*/dataset.yaml")}
    assert set(rows["datasets"].split(", ")) == cards
