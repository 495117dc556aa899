"""What the documents point at is there."""

import re
from pathlib import Path

import pytest

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
