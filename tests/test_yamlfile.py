"""YAML with a memory of its lines."""

import json
import re
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from recsys_had.errors import ConfigError
from recsys_had.suggest import nearest
from recsys_had.yamlfile import parse_yaml, read_yaml, validation_problems


class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    rate: float
    kind: Literal["a", "b"] = "a"


class Outer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    inner: Inner


def problems_of(text: str) -> list[str]:
    document = parse_yaml(text, path="x.yaml")
    with pytest.raises(pydantic.ValidationError) as caught:
        Outer.model_validate(document.content)
    return validation_problems(caught.value, document, Outer)


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one() -> None:
    assert problems_of("name: n\ninner:\n  rate: 1\n  kond: a\n") == [
        "x.yaml:4: inner.kond: unknown key. Did you mean 'kind'?"
    ]


def test_a_missing_key_is_named_in_full_at_the_line_of_its_owner() -> None:
    assert problems_of("name: n\ninner:\n  kind: b\n") == [
        "x.yaml:2: inner.rate: the key is missing. Add it."
    ]


def test_a_value_of_the_wrong_type_is_shown() -> None:
    assert problems_of("name: n\ninner:\n  rate: much\n") == [
        "x.yaml:3: inner.rate: must be a number; got 'much'."
    ]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems_of("nome: n\ninner:\n  rate: much\n  kind: c\n")) == 4


def test_a_pair_of_surrogates_is_the_character_it_is_in_json() -> None:
    found = parse_yaml(json.dumps({"\U0001f600": "a\U0001f600"}), path="x", error=ConfigError)
    assert found.content == {"\U0001f600": "a\U0001f600"}
    assert found.place(("\U0001f600",)) == "x:1"
    with pytest.raises(ConfigError, match="the key stands twice"):
        parse_yaml('"\\ud83d\\ude00": 1\n"\U0001f600": 2\n', error=ConfigError)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml:2: a: the key stands twice"):
        parse_yaml("a: 1\na: 2\n", path="x.yaml", error=ConfigError)


def test_text_that_is_no_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml:2: is not valid YAML: "):
        parse_yaml("a: 1\n\tb: 2\n", path="x.yaml", error=ConfigError)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("2024-13-45", "'2024-13-45' is no date. Put it in quotes if it is text."),
        ("!!int abc", "'abc' is no whole number. Put it in quotes if it is text."),
        ("!!int ''", "'' is no whole number. Put it in quotes if it is text."),
        ("[1, !!float abc]", "'abc' is no number. Put it in quotes if it is text."),
        ("!!bool abc", "'abc' is no truth. Put it in quotes if it is text."),
        ("!!timestamp abc", "'abc' is no date. Put it in quotes if it is text."),
        (r'"\UFFFFFFFF"', "an escape stands for no character."),
        (r'"x\ud800"', r"'x\ud800' must be Unicode; it has half of a pair of surrogates."),
        (r'{"\udfff": 1}', r"'\udfff' must be Unicode; it has half of a pair of surrogates."),
        ("\0", r"the character '\x00' is not allowed."),
        ("[a]: b", "mapping values are not allowed here."),
        ("*b", "found undefined alias 'b'."),
    ],
)
def test_a_value_that_is_not_what_it_is_written_as_is_told_with_its_line(
    value: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(f"a: 1\nb: {value}\n", path="x.yaml", error=ConfigError)
    assert str(caught.value) == f"x.yaml:2: is not valid YAML: {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nmodel: &m\n  nodes: *m\n", "x.yaml:3: model.nodes"),
        ("a: &m {<<: *m}\n", "x.yaml:1: a.<<"),
        ("a:\n  - &m [1, *m]\n", "x.yaml:2: a.0.1"),
    ],
)
def test_an_alias_of_what_it_stands_in_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, path="x.yaml", error=ConfigError)
    why = "is an alias of what it stands in. Write out what it shall hold."
    assert str(caught.value) == f"{told}: {why}"


@pytest.mark.parametrize("of", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_multiply_are_refused(of: str) -> None:
    """Ten of ten of ten: a few lines that stand for a thousand million values."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, 10):
        several = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {of.format(several)}")
    with pytest.raises(ConfigError) as caught:
        parse_yaml("\n".join(lines), path="x.yaml", error=ConfigError)
    (told,) = caught.value.problems
    values = "more than 100,000 values, those of aliases included. Write fewer."
    assert re.fullmatch(rf"x\.yaml:[56]: a[45]: {values}", told)


def test_an_alias_may_be_used_often() -> None:
    content = parse_yaml("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}").content
    assert content == {"a": {"b": 1}, "c": [{"b": 1}] * 2, "d": {"b": 1, "e": 2}}


@pytest.mark.parametrize("levels", [101, 5000])
def test_nesting_has_bounds(levels: int) -> None:
    text = f"a: 1\nb: {'[' * levels}{']' * levels}\n"
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, path="x.yaml", error=ConfigError)
    assert str(caught.value) == "x.yaml:2: more than 100 levels of nesting. Write fewer."


@pytest.mark.parametrize(
    ("key", "got"),
    [
        ("~", "nothing"),
        ("true", "true"),
        ("3", "3"),
        ("010", "010"),
        ("1e3", "1e3"),
        ("2024-01-01", "2024-01-01"),
        ("[a, b]", "a list"),
        ("{a: b}", "a mapping"),
    ],
)
def test_a_key_that_is_no_text_is_refused(key: str, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(f"a: 1\nnodes:\n  {key}: fm\n", path="x.yaml", error=ConfigError)
    assert str(caught.value) == f"x.yaml:3: a key must be text; got {got}. Put it in quotes."


def test_a_key_in_quotes_is_a_text() -> None:
    text = '"3": a\n"~": b\n"true": c\n1:30: d\non: e\n'
    assert list(parse_yaml(text).content) == ["3", "~", "true", "1:30", "on"]


def test_a_list_is_no_mapping() -> None:
    with pytest.raises(
        ConfigError, match=r"^x\.yaml: must be a mapping of keys to values; got \[1\]\.$"
    ):
        parse_yaml("- 1\n", path="x.yaml", error=ConfigError)


def test_an_empty_file_holds_nothing() -> None:
    told = r"^x\.yaml: must be a mapping of keys to values; got nothing\.$"
    with pytest.raises(ConfigError, match=told):
        parse_yaml("# Later.\n", path="x.yaml", error=ConfigError)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: 2023-11-20", "name: must be text; got the date 2023-11-20. Put it in quotes."),
        ("name: 7", "name: must be text; got 7. Put it in quotes."),
        ("name: true", "name: must be text; got true. Put it in quotes."),
        ("name: [a]", "name: must be text; got ['a']."),
        ("name:", "name: must be text; got nothing."),
        ("inner:", "inner: must be a mapping of keys to values; got nothing."),
        ("inner: 3", "inner: must be a mapping of keys to values; got 3."),
        ("inner: {rate: 1, kind: A}", "inner.kind: must be 'a' or 'b'; got 'A'. Did you mean 'a'?"),
        ("inner: {rate: 1, kind: 5}", "inner.kind: must be 'a' or 'b'; got 5."),
    ],
)
def test_types_are_told_in_plain_words(text: str, told: str) -> None:
    assert f"x.yaml:1: {told}" in problems_of(text + "\n")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml", error=ConfigError)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: it is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml", error=ConfigError)


def test_without_a_near_name_the_known_ones_are_listed() -> None:
    assert nearest("zzz", ["beta", "alpha"]) == " Known: alpha, beta."
    assert nearest("zzz", []) == ""


def test_a_column_named_on_or_no_is_a_text() -> None:
    content = parse_yaml("on: {no: yes}\nflag: true\nother: False").content
    assert content == {"on": {"no": "yes"}, "flag": True, "other": False}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("12:30:00", "12:30:00"),
        ("1:30.5", "1:30.5"),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("-1-2", "-1-2"),
        ("inf", "inf"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(written: str, value: object) -> None:
    found = parse_yaml(f"a: {written}").content["a"]
    assert (type(found), found) == (type(value), value)


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest("C1", ["c1", "c2"]) == " Did you mean 'c1'?"
    assert nearest("C1", [""]) == ""
