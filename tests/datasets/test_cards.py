"""The bundled datasets and experiments: what they say, and that their READMEs can be followed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from recsys_had.pipelines.cli import main

from recsys_had.bundled import configs_dir, datasets_dir
from recsys_had.columns import IntegerColumn, LabelColumn, MultiCategoricalColumn
from recsys_had.experiment_file import load_experiment
from recsys_had.schema import SPLITS, ContentHashSplit, GivenSplit, StratifiedSplit, load_card

DATASETS = (
    *("avazu", "avazu_x4", "criteo", "criteo_1tb", "criteo_x4"),
    *("frappe", "movielens", "synthetic"),
)
SECTIONS = ["Where its owner offers it", "Licence", "Preparation", "Commands"]
EXPERIMENTS = {path.stem: path for path in sorted(configs_dir().glob("*.yaml"))}

CRITEO_FIELDS = [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
AVAZU_FIELDS = [
    *("hour", "weekday", "is_weekend", "C1", "banner_pos"),
    *("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
    *(f"C{i}" for i in range(14, 22)),
]
FRAPPE_FIELDS = [
    *("user", "item", "daytime", "weekday", "isweekend"),
    *("homework", "cost", "weather", "country", "city"),
]


def readme_of(dataset: str) -> str:
    return (datasets_dir() / dataset / "README.md").read_text(encoding="utf-8")


def field_names(dataset: str) -> list[str]:
    return [field.name for field in load_card(dataset).fields]


def commands_of(text: str) -> list[list[str]]:
    """The words of each ``recsys-had`` line in the text's sh blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line[:1] == ["recsys-had"]]


def problems_of(words: list[str]) -> Iterator[str]:
    """What is wrong with a ``recsys-had`` line, as the command itself would parse it."""
    context = click.Context(main)
    name, arguments = words[1], words[2:]
    command = main.get_command(context, name)
    if command is None:
        yield f"{name}: no such command"
        return
    known = {option for parameter in command.params for option in parameter.opts}
    given = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    yield from (f"{name} {option}: no such option" for option in sorted(given - known))
    try:
        parsed = command.make_context(name, list(arguments), parent=context).params
    except click.UsageError as error:
        yield f"{name}: {error.format_message()}"
        return
    if "dataset" in parsed and parsed["dataset"] not in DATASETS:
        yield f"{name}: no dataset {parsed['dataset']}"
    experiment = parsed.get("experiment") or ("run" in parsed and parsed["run"].name)
    if experiment and experiment not in EXPERIMENTS:
        yield f"{name}: no experiment {experiment}"


def test_these_datasets_are_bundled() -> None:
    assert sorted(path.parent.name for path in datasets_dir().glob("*/dataset.yaml")) == [*DATASETS]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_card_is_named_as_its_folder_and_described(dataset: str) -> None:
    card = load_card(dataset)
    assert card.name == dataset
    assert card.description.endswith(".")


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_readme_has_a_title_and_the_four_sections_in_order(dataset: str) -> None:
    lines = readme_of(dataset).splitlines()
    assert lines[0].startswith("# ")
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS


@pytest.mark.parametrize("dataset", ["criteo", "criteo_x4"])
def test_criteo_has_39_fields_and_no_dense_input(dataset: str) -> None:
    card = load_card(dataset)
    assert card.label == "label"
    assert field_names(dataset) == CRITEO_FIELDS
    assert len(card.fields) == 39
    assert card.dense == ()
    assert {field.source for field in card.fields[:13]} == {"bucket"}
    assert {field.source for field in card.fields[13:]} == {"value"}
    assert {field.min_count for field in card.fields} == {10}


@pytest.mark.parametrize(("dataset", "missing"), [("criteo", None), ("criteo_x4", 0)])
def test_only_criteo_x4_takes_a_missing_integer_for_0(dataset: str, missing: int | None) -> None:
    columns = load_card(dataset).columns.values()
    integers = [column for column in columns if isinstance(column, IntegerColumn)]
    assert [column.missing for column in integers] == [missing] * 13


@pytest.mark.parametrize("dataset", ["avazu", "avazu_x4"])
def test_avazu_has_24_fields_three_of_them_parts_of_the_hour(dataset: str) -> None:
    card = load_card(dataset)
    assert card.label == "click"
    assert field_names(dataset) == AVAZU_FIELDS
    assert len(card.fields) == 24
    assert card.dense == ()
    assert [(field.column, field.source) for field in card.fields[:3]] == [
        ("hour", "hour"),
        ("hour", "weekday"),
        ("hour", "is_weekend"),
    ]
    assert {field.min_count for field in card.fields[3:]} == {2}


@pytest.mark.parametrize("dataset", ["avazu", "avazu_x4"])
def test_the_id_of_avazu_stays_outside_the_model(dataset: str) -> None:
    assert load_card(dataset).columns["id"].kind == "id"


def test_frappe_has_ten_categorical_fields_that_keep_every_value() -> None:
    card = load_card("frappe")
    assert card.label == "label"
    assert field_names("frappe") == FRAPPE_FIELDS
    assert card.dense == ()
    assert {(field.source, field.min_count) for field in card.fields} == {("value", 1)}


def test_movielens_joins_its_films_and_users() -> None:
    card = load_card("movielens")
    assert field_names("movielens") == [
        *("user", "item", "hour", "weekday", "genres", "age", "gender", "occupation")
    ]
    assert card.dense == ()
    assert {lookup.key: lookup.file for lookup in card.lookups.values()} == {
        "item": "u.item",
        "user": "u.user",
    }


def test_the_genres_of_movielens_are_its_one_field_of_several_values() -> None:
    card = load_card("movielens")
    assert [field.name for field in card.fields if field.is_multi] == ["genres"]
    genres = card.all_columns["genres"]
    assert isinstance(genres, MultiCategoricalColumn)
    assert len(genres.flags or ()) == 19


def test_a_rating_of_movielens_counts_as_a_click_from_4_on() -> None:
    card = load_card("movielens")
    label = card.columns[card.label]
    assert isinstance(label, LabelColumn)
    assert label.positive_from == 4


def test_synthetic_has_eight_dense_inputs_and_otherwise_the_columns_of_criteo() -> None:
    card = load_card("synthetic")
    assert list(card.columns) == list(load_card("criteo").columns)
    assert card.dense == tuple(CRITEO_FIELDS[:8])
    assert field_names("synthetic") == CRITEO_FIELDS[8:]
    transforms = [
        column.transform for column in card.columns.values() if isinstance(column, IntegerColumn)
    ]
    assert transforms == ["log1p"] * 4 + ["standardise"] * 4 + ["log_squared_bucket"] * 5


@pytest.mark.parametrize("dataset", ["criteo_x4", "avazu_x4"])
def test_an_x4_card_splits_as_the_published_benchmark(dataset: str) -> None:
    assert load_card(dataset).split == StratifiedSplit(
        by="stratified_kfold", num_folds=10, seed=2018, test_fold=0, valid_fold=1
    )


@pytest.mark.parametrize("dataset", ["criteo", "avazu", "movielens"])
def test_an_everyday_card_splits_8_1_1_by_content(dataset: str) -> None:
    assert load_card(dataset).split == ContentHashSplit(
        by="content_hash", seed=2024, ratios={"train": 0.8, "valid": 0.1, "test": 0.1}
    )


def test_synthetic_leaves_the_test_to_fresh_rows() -> None:
    assert load_card("synthetic").split == ContentHashSplit(
        by="content_hash", seed=2024, ratios={"train": 0.9, "valid": 0.1}
    )


def test_the_splits_of_frappe_are_given_as_files() -> None:
    assert load_card("frappe").split == GivenSplit(by="given")


@pytest.mark.parametrize("twin", ["criteo", "avazu"])
def test_an_x4_card_reads_the_same_columns_as_its_everyday_twin(twin: str) -> None:
    ours, published = load_card(twin), load_card(f"{twin}_x4")
    assert list(ours.columns) == list(published.columns)
    assert ours.format == published.format


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_loads_and_is_named_by_its_dataset_and_model(name: str) -> None:
    dataset = load_experiment(name).dataset
    assert dataset in DATASETS
    models = {path.stem for path in (configs_dir() / "models").glob("*.yaml")}
    assert name in {f"{dataset}_{model}" for model in models}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_opens_with_the_command_that_runs_it(name: str) -> None:
    first = EXPERIMENTS[name].read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(rf"# recsys-had train {name} --data \S+ --out \S+", first)
    assert list(problems_of(shlex.split(first.removeprefix("# ")))) == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_has_an_lr_and_an_fm_to_start_from(dataset: str) -> None:
    assert {f"{dataset}_lr", f"{dataset}_fm"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_commands_of_a_readme_exist_with_their_options(dataset: str) -> None:
    problems = [
        problem for words in commands_of(readme_of(dataset)) for problem in problems_of(words)
    ]
    assert problems == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_readme_ingests_trains_and_predicts_with_its_own_dataset(dataset: str) -> None:
    commands = commands_of(readme_of(dataset))
    assert {"ingest", "train", "predict"} <= {words[1] for words in commands}
    for words in commands:
        if words[1] == "ingest":
            assert words[2] == dataset
        elif words[1] != "demo":
            assert load_experiment(Path(words[2]).name).dataset == dataset


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_readme_reads_a_folder_only_after_another_command_wrote_it(dataset: str) -> None:
    written: set[str] = set()
    for words in commands_of(readme_of(dataset)):
        read = [words[2]] if words[1] in ("evaluate", "predict") else []
        if "--data" in words:
            read.append(words[words.index("--data") + 1])
        assert set(read) <= written
        if "--out" in words:
            written.add(words[words.index("--out") + 1])


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_readme_evaluates_only_a_split_the_card_makes(dataset: str) -> None:
    split = load_card(dataset).split
    made = set(split.ratios) if isinstance(split, ContentHashSplit) else set(SPLITS)
    for words in commands_of(readme_of(dataset)):
        if words[1] == "evaluate":
            assert words[words.index("--split") + 1] in made


def test_frappe_is_ingested_with_a_split_for_each_file() -> None:
    ingest = next(words for words in commands_of(readme_of("frappe")) if words[1] == "ingest")
    raw = [ingest[i + 1] for i, word in enumerate(ingest) if word == "--raw"]
    assert [text.partition("=")[0] for text in raw] == ["train", "valid", "test"]


def test_the_movielens_readme_names_the_files_beside_the_ratings() -> None:
    text = readme_of("movielens").partition("## Commands")[2]
    assert all(lookup.file in text for lookup in load_card("movielens").lookups.values())


def test_a_wrong_command_in_a_readme_would_be_found() -> None:
    wrong = "```sh\nrecsys-had train criteo_fm --dta x --out y\nrecsys-had fit criteo\n"
    wrong += "recsys-had ingest crito --raw x --out y  # a comment\n"
    wrong += "recsys-had predict runs/criteo_mf --input x --out y\n```\n"
    problems = [problem for words in commands_of(wrong) for problem in problems_of(words)]
    assert "train --dta: no such option" in problems
    assert "fit: no such command" in problems
    assert "ingest: no dataset crito" in problems
    assert "predict: no experiment criteo_mf" in problems
