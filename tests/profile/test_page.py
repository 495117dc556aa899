"""The page is whole, shows what it should, and nothing in it can act."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from recsys_had.profile import page, profile

VOID = {"meta"}


class Reader(HTMLParser):
    """Refuses a tag that is not closed in its turn; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture(scope="module")
def read(made) -> Reader:
    return Reader(page(made.profile))


def test_no_tag_acts_or_fetches(read) -> None:
    assert not {"script", "img", "link", "iframe", "object", "form"} & {tag for tag, _ in read.tags}
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")
    policy = [found["content"] for tag, found in read.tags if found.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_the_style_fetches_nothing_either(made) -> None:
    assert not re.search(r"url\(|@import|https?:", page(made.profile))


def test_values_are_shown_as_they_stand(read) -> None:
    assert "<script>alert(1)</script>" in read.text
    assert "Żółw & 'żuk'" in read.text and 'a "quoted" one' in read.text
    assert "Rows <b>made</b> for a test & nothing else." in read.text


def test_long_values_are_cut_and_unseen_signs_spelled_out(made, read) -> None:
    assert "x" * 59 + "…" in read.text and "x" * 60 not in read.text
    field = made.profile.fields[1]
    turned = replace(field, top=[replace(field.top[0], value="a\u202eb\x00")])
    text = Reader(page(replace(made.profile, fields=[turned]))).text
    assert r"a\u202eb\x00" in text and "\u202e" not in text


def test_names_of_columns_are_escaped_in_text_and_in_attributes(made) -> None:
    name = "\"><script>'&"
    columns = [replace(column, name=name) for column in made.profile.fields]
    numbers = [replace(column, name=name) for column in made.profile.numbers]
    vectors = [replace(column, name=name) for column in made.profile.vectors]
    read = Reader(
        page(replace(made.profile, dataset=name, fields=columns, numbers=numbers, vectors=vectors))
    )
    assert "script" not in {tag for tag, _ in read.tags}
    assert read.text.count(name) > len(columns) + len(numbers) + len(vectors)
    labels = [attributes.get("aria-label") for _, attributes in read.tags]
    assert f"Most frequent values of {name}" in labels


def test_every_column_is_told_and_every_link_leads_somewhere(made, read) -> None:
    for column in (*made.profile.fields, *made.profile.numbers, *made.profile.vectors):
        assert column.name in read.text
    anchors = {found["id"] for tag, found in read.tags if tag == "section"}
    links = {(found["href"] or "")[1:] for tag, found in read.tags if tag == "a"}
    assert links == anchors
    assert anchors == {"look", "splits", "time", "leakage", "fields", "numbers", "vectors"}


def test_counts_stand_on_the_page(made, read) -> None:
    for rate in made.profile.splits.values():
        assert f"{rate.rows:,}" in read.text
    for _, auc in made.profile.ranking:
        assert f"{auc.auc:.4f}" in read.text
    assert "not known" in read.text  # what user's min_count 5 left out
    assert "bucket " in read.text and "hash " in read.text


def test_all_tables_scroll_in_a_box_that_the_keyboard_reaches(made) -> None:
    text = page(made.profile)
    boxes = text.count('<div class="scroll" role="region" tabindex="0"')
    assert text.count("<table>") == boxes > 10


def test_the_same_rows_give_the_same_page(made) -> None:
    assert page(profile(made.data)) == page(made.profile)


def test_without_fields_the_page_has_no_section_of_them(encode, tmp_path: Path) -> None:
    card = """
name: bare
format: {type: csv}
columns: {click: {kind: label}, price: {kind: float}}
split: {by: given}
"""
    raw = {"train": pd.DataFrame({"click": [0, 1, 1], "price": [1.0, 1.0, 1.0]})}
    read = Reader(page(profile(encode(raw, tmp_path, card))))
    anchors = {found["id"] for tag, found in read.tags if tag == "section"}
    assert anchors == {"look", "splits", "time", "leakage", "numbers"}
    assert "One value in all training rows, so nothing to learn from: price." in read.text


def test_without_numbers_and_clicks_the_page_says_so(encode, tmp_path: Path) -> None:
    card = """
name: bare
format: {type: csv}
columns: {click: {kind: label}, C1: {kind: categorical}}
split: {by: given}
"""
    raw = {"train": pd.DataFrame({"click": [0, 0], "C1": ["a", None]})}
    read = Reader(page(profile(encode(raw, tmp_path, card))))
    assert "numbers" not in {found.get("id") for _, found in read.tags}
    assert "no AUC can be measured" in read.text
    assert "No row of train is clicked" in read.text
    assert "(without an id)" in read.text
