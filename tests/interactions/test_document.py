"""docs/interactions.md is what the code says."""

from pathlib import Path

import pytest

from recsys_had.interactions import names
from recsys_had.interactions.document import markdown

PAGE = Path(__file__).parents[2] / "docs" / "interactions.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


@pytest.mark.parametrize("name", names())
def test_every_interaction_has_a_section_with_formula_shape_and_paper(name: str) -> None:
    text = markdown()
    section = text[text.index(f"### {name}\n") :].split("\n### ", 2)[0]
    for part in ("Shape: `(B, ", "Paper: ", "Differs from the paper: ", "`"):
        assert part in section
    assert ">>>" not in section and "Args:" not in section
