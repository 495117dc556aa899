"""Dataset cards: what they say, and what is told of a wrong one."""

import re
from pathlib import Path

import pytest

from recsys_had.columns import source_columns
from recsys_had.errors import SchemaError
from recsys_had.schema import load_card, parse_card

CARD = """\
name: clicks
description: A card.
format: {type: tsv, header: false}
columns:
  click: {kind: label}
  I1..I2: {kind: integer, transform: log_squared_bucket, min_count: 10}
  price: {kind: float, transform: standardise}
  at: {kind: timestamp, format: unix, parts: [hour, weekday]}
  C1: {kind: categorical, min_count: 2}
  tags: {kind: multi_categorical, separator: ","}
  id: {kind: id}
split: {by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}}
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SchemaError) as caught:
        parse_card(text, path="c.yaml")
    return caught.value.problems


def test_fields_and_dense_inputs_follow_the_order_of_the_columns() -> None:
    card = parse_card(CARD)
    assert [(field.name, field.source, field.min_count) for field in card.fields] == [
        ("I1", "bucket", 10),
        ("I2", "bucket", 10),
        ("hour", "hour", 1),
        ("weekday", "weekday", 1),
        ("C1", "value", 2),
        ("tags", "multi", 1),
    ]
    assert card.dense == ("price",)
    assert card.label == "click"


def test_the_digest_ignores_the_description_and_nothing_else() -> None:
    digest = parse_card(CARD).digest
    assert parse_card(CARD.replace("A card.", "Other words.")).digest == digest
    assert parse_card(CARD.replace("min_count: 2", "min_count: 3")).digest != digest
    swapped = CARD.replace("  id: {kind: id}\n", "").replace(
        "columns:\n", "columns:\n  id: {kind: id}\n"
    )
    assert parse_card(swapped).digest != digest


def test_an_option_that_is_new_and_not_used_leaves_digests_as_they_were() -> None:
    """Data folders and runs of earlier versions stay usable: their digests, of commit 7f3987d."""
    before = {
        "avazu": "d234902ff8ad4c14d6b49c4b31b004f937e94ed61d0fb0d31fe36f4774b77c99",
        "criteo_x4": "625711506129a9e82318eeec8fb8547d75719a767ac2253c19596f0431fc940e",
        "movielens": "436de039f45c577744f58cad14a40457b86027d61b2a8185a68b202760ed41ab",
        "synthetic": "930f26cb3ffcf22c71c396bd14d5c55cd681008adbb30ecf94c741e339e4b54a",
    }
    assert {name: load_card(name).digest for name in before} == before
    digests = {parse_card(CARD).digest}
    for old, new in (
        ("min_count: 2", "min_count: 2, top_k: 3"),
        ("standardise", "standardise, clip: [0, null]"),
        ("standardise", "quantile_bins, num_bins: 3"),
        ("standardise", "quantile_bins, num_bins: 4"),
    ):
        digests.add(parse_card(CARD.replace(old, new)).digest)
    assert len(digests) == 5


def test_the_json_of_a_card_is_the_card() -> None:
    card = parse_card(CARD)
    assert type(card).model_validate_json(card.model_dump_json()).digest == card.digest


def test_flags_and_lookups_give_one_multi_valued_field() -> None:
    card = parse_card(
        CARD.replace(
            "split:",
            "lookups:\n"
            "  items:\n"
            "    file: u.item\n"
            "    key: C1\n"
            "    format: {type: csv, header: false, separator: '|', encoding: latin-1}\n"
            "    columns:\n"
            "      C1: {kind: id}\n"
            "      genres: {kind: multi_categorical, flags: [drama, comedy]}\n"
            "split:",
        )
    )
    assert card.fields[-1].name == "genres"
    assert card.fields[-1].is_multi
    assert source_columns(card.lookups["items"].columns) == ("C1", "drama", "comedy")


SIDES = """
name: shop
format: {type: csv}
columns:
  click: {kind: label}
  item: {kind: categorical}
  title: {kind: TITLE}
lookups:
  items:
    file: items.csv
    key: item
    format: {type: csv}
    columns:
      item: {kind: id}
      title: {kind: SIDE}
split: {by: given}
"""


@pytest.mark.parametrize(
    ("raw", "side", "read"),
    [
        ("categorical", "ignored", "columns"),
        ("float", "id", "columns"),
        ("ignored", "categorical", "side"),
        ("id", "multi_categorical", "side"),
    ],
)
def test_of_a_name_that_both_tables_have_the_column_is_read_that_is_not_ignored(
    raw: str, side: str, read: str
) -> None:
    card = parse_card(SIDES.replace("TITLE", raw).replace("SIDE", side))
    assert card.all_columns["title"].kind == (raw if read == "columns" else side)
    assert ("title" in card.dense) == (raw == "float")
    assert ("title" in [field.name for field in card.fields]) == (raw != "float")


@pytest.mark.parametrize(
    ("raw", "side", "problem"),
    [
        (
            "categorical",
            "float",
            "c.yaml:15: lookups.items.columns.title: the raw rows have it too. Mark one of them "
            "ignored.",
        ),
        (
            "categorical",
            "label",
            "c.yaml:15: lookups.items.columns.title: a label must stand in the raw rows, not in a "
            "side table. Move it there, or mark it ignored.",
        ),
    ],
)
def test_a_side_tables_column_that_cannot_be_one_is_told(raw: str, side: str, problem: str) -> None:
    text = SIDES.replace("TITLE", raw).replace("SIDE", side)
    with pytest.raises(SchemaError, match=f"^{re.escape(problem)}$"):
        parse_card(text, path="c.yaml")
    if side == "float":
        more = text.replace("title: {kind: categorical}", "title: {kind: ignored}")
        more = more.replace("split:", "  more:\n    file: m.csv\n    key: item\n"
                            "    format: {type: csv}\n    columns: {item: {kind: id}, "
                            "title: {kind: float}}\nsplit:")  # fmt: skip
        with pytest.raises(SchemaError, match="rows of items have it too"):
            parse_card(more, path="c.yaml")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "min_count: 2",
            "min_cont: 2",
            "c.yaml:9: columns.C1.min_cont: unknown key. Did you mean 'min_count'?",
        ),
        (
            "{kind: label}",
            "{kind: lable}",
            "c.yaml:5: columns.click.kind: unknown kind 'lable'. Did you mean 'label'?",
        ),
        ("{kind: id}", "{}", "c.yaml:11: columns.id.kind: the key is missing. Add it."),
        (
            "min_count: 10",
            "min_count: 0",
            "c.yaml:6: columns.I1.min_count: must be at least 1; got 0.",
        ),
        (
            "test: 0.1",
            "test: 0.3",
            "c.yaml:12: split.ratios: must hold train and sum to 1; "
            "got {'train': 0.8, 'valid': 0.1, 'test': 0.3}.",
        ),
        (
            "  click: {kind: label}\n",
            "",
            "c.yaml: file: columns must hold exactly one of kind label; got [].",
        ),
        (
            "parts: [hour, weekday]",
            "parts: {hour: C1}",
            "c.yaml: file: field names must be unique; got C1 twice.",
        ),
        (
            "type: tsv",
            "typ: tsv",
            "c.yaml:3: format.typ: unknown key. Did you mean 'type'?",
        ),
        (
            "by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}",
            "by: time, column: price, valid_from: '2020'",
            "c.yaml: file: split.column must name a timestamp column; got 'price'.",
        ),
        (
            "  C1: {kind: categorical, min_count: 2}\n",
            "  C1: {kind: categorical, min_count: 2, hash_buckets: 9}\n",
            "c.yaml:9: columns.C1: min_count and hash_buckets exclude each other; "
            "a hash keeps no counts. Keep one.",
        ),
        (
            "  C1: {kind: categorical, min_count: 2}\n",
            "  C1: {kind: categorical, top_k: 2, hash_buckets: 9}\n",
            "c.yaml:9: columns.C1: top_k and hash_buckets exclude each other: only a vocabulary "
            "counts values. Keep one.",
        ),
        (
            "  C1: {kind: categorical, min_count: 2}\n",
            "  C1: {kind: categorical, top_k: 2, managed: {rows: 9}}\n",
            "c.yaml:9: columns.C1: top_k and managed exclude each other: only a vocabulary "
            "counts values. Keep one.",
        ),
        (
            "min_count: 2",
            "top_k: 0",
            "c.yaml:9: columns.C1.top_k: must be at least 1; got 0.",
        ),
        (
            "standardise",
            "quantile_bins",
            "c.yaml:7: columns.price: quantile_bins needs num_bins, how many bins there are at "
            "most. Add it.",
        ),
        (
            "standardise",
            "standardise, num_bins: 8",
            "c.yaml:7: columns.price: num_bins belongs to transform quantile_bins; got "
            "'standardise'. Leave one of both out.",
        ),
        (
            "standardise",
            "quantile_bins, num_bins: 1",
            "c.yaml:7: columns.price.num_bins: must be at least 2; got 1.",
        ),
        (
            "log_squared_bucket",
            "quantile_bins, num_bins: 4",
            "c.yaml:6: columns.I1: quantile_bins excludes min_count, top_k, hash_buckets and "
            "managed: each bin has an id. Leave them out.",
        ),
        (
            "log_squared_bucket, min_count: 10",
            "log1p, top_k: 10",
            "c.yaml:6: columns.I1: top_k chooses among the values of a field, and transform log1p "
            "makes none. Leave it out, or let the kind be categorical.",
        ),
        (
            "standardise",
            "standardise, clip: [3, 3]",
            "c.yaml:7: columns.price.clip: must be [least, greatest], one of which may be left "
            "empty; got [3.0, 3.0].",
        ),
        (
            "standardise",
            "standardise, clip: [null, null]",
            "c.yaml:7: columns.price.clip: must be [least, greatest], one of which may be left "
            "empty; got [None, None].",
        ),
        (
            "log_squared_bucket",
            "log_squared_bucket, clip: [0, 1.5]",
            "c.yaml:6: columns.I1.clip.1: must be a whole number; got 1.5.",
        ),
        (
            "standardise",
            "standardize",
            "c.yaml:7: columns.price.transform: must be 'none', 'log1p', 'standardise', 'min_max' "
            "or 'quantile_bins'; got 'standardize'. Did you mean 'standardise'?",
        ),
        (
            "  I1..I2",
            "  C1..C2",
            "c.yaml:9: columns.C1: the column is described twice.",
        ),
        (
            "  price:",
            "  a.b:",
            "c.yaml: file: a column's name must not hold a '.'; got 'a.b'. Rename it.",
        ),
        (
            "format: unix,",
            "format: unx,",
            "c.yaml:8: columns.at.format: must be unix, unix_ms or a pattern such as "
            "'%Y-%m-%d %H:%M:%S'; got 'unx'. Did you mean 'unix'?",
        ),
        (
            "format: unix,",
            "format: foo,",
            "c.yaml:8: columns.at.format: must be unix, unix_ms or a pattern such as "
            "'%Y-%m-%d %H:%M:%S'; got 'foo'.",
        ),
        (
            "by: content_hash, ratios: {train: 0.8, valid: 0.1, test: 0.1}",
            "by: time, column: at, valid_from: 2023-11-20",
            "c.yaml:12: split.valid_from: must be text; got the date 2023-11-20. Put it in quotes.",
        ),
        (
            "transform: standardise}",
            "transform: standardise, missing: .inf}",
            "c.yaml:7: columns.price.missing: must be a finite number; got inf.",
        ),
    ],
)
def test_a_wrong_card_is_told_with_file_and_line(old: str, new: str, problem: str) -> None:
    assert old in CARD
    assert problem in problems_of(CARD.replace(old, new))


def test_a_range_gives_each_column_its_problem() -> None:
    problems = problems_of(CARD.replace("min_count: 10", "min_count: 0"))
    assert [problem.split(": ")[1] for problem in problems] == [
        "columns.I1.min_count",
        "columns.I2.min_count",
    ]


def test_an_unknown_bundled_name_suggests_the_nearest() -> None:
    with pytest.raises(
        SchemaError, match=r"^criteoo: no bundled dataset of this name\. Did you mean 'criteo'\?"
    ):
        load_card("criteoo")


def test_a_card_of_ones_own_is_read_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text(CARD)
    assert load_card(str(tmp_path / "dataset.yaml")).name == "clicks"
    assert load_card(str(tmp_path)).name == "clicks"
    with pytest.raises(SchemaError, match=r"none\.yaml: cannot be read: No such file"):
        load_card(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("label", "a field's name must not be label, row_id or weight, which encoded rows have"),
        ("row_id", "a field's name must not be label, row_id or weight, which encoded rows have"),
        ("weight", "a field's name must not be label, row_id or weight, which encoded rows have"),
        ("'*'", "a column's name must not be a pattern; got '*'. Rename it."),
        ("'^a.*$'", "a column's name must not hold a '.'; got '^a.*$'. Rename it."),
        ("'^a$'", "a column's name must not be a pattern; got '^a$'. Rename it."),
    ],
)
def test_a_column_named_like_something_of_ours_is_refused(name: str, told: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(told)):
        parse_card(
            "name: shop\nformat: {type: csv}\nsplit: {by: given}\ncolumns:\n"
            f"  click: {{kind: label}}\n  {name}: {{kind: categorical}}\n"
        )


def test_the_label_itself_may_be_named_label() -> None:
    card = parse_card(
        "name: shop\nformat: {type: csv}\nsplit: {by: given}\ncolumns:\n"
        "  label: {kind: label}\n  row_id: {kind: id}\n  user: {kind: categorical}\n"
    )
    assert card.label == "label"
