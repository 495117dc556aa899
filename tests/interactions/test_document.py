"""docs/interactions.md, and the functions in docs/models.md, are what the code says."""

from pathlib import Path

import pytest

from recsys_had.interactions import names
from recsys_had.interactions.document import markdown
from recsys_had.interactions.formula import PRIMITIVES
from recsys_had.interactions.formula_document import functions, with_functions

PAGE = Path(__file__).parents[2] / "docs" / "interactions.md"
MODELS = PAGE.with_name("models.md")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


@pytest.mark.parametrize("name", names())
def test_every_interaction_has_a_section_with_formula_shape_and_paper(name: str) -> None:
    text = markdown()
    section = text[text.index(f"### {name}\n") :].split("\n### ", 2)[0]
    for part in ("Shape: `(B, ", "Paper: ", "Differs from the paper: ", "`"):
        assert part in section
    assert ">>>" not in section and "Args:" not in section


def test_the_functions_formulas_may_call_are_up_to_date() -> None:
    page = MODELS.read_text()
    assert page == with_functions(page), "run `make docs`"


def test_a_function_is_told_with_its_signature_its_first_sentence_and_its_texts() -> None:
    rows = functions().splitlines()
    assert any(
        row.startswith(
            '| `pool(x, on, how="sum")` | Sum, mean or maximum over tokens or channels; '
        )
        and row.endswith(' | `on`: `"T"`, `"C"`; `how`: `"sum"`, `"mean"`, `"max"` |')
        for row in rows
    )
    assert len([row for row in rows if row.startswith("| `")]) == len(PRIMITIVES)


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the page must have each mark once: <!-- .* end -->\."):
        with_functions("# Models\n")
