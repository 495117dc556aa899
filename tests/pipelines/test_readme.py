"""The README's own dataset and experiment, run as they are written."""

import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from recsys_had.config import TrainConfig
from recsys_had.experiment_file import load_experiment
from recsys_had.schema import parse_card

README = Path(__file__).parents[2] / "README.md"
TRAINING = README.with_name("docs") / "training.md"


def block_after(text: str, language: str) -> str:
    """The first code block of a language that follows a text."""
    found = re.search(
        rf"{re.escape(text)}.*?```{language}\n(.*?)```", README.read_text(), re.DOTALL
    )
    assert found, text
    return found[1]


def clicks(num_rows: int) -> str:
    generator = np.random.default_rng(5)
    rows = ["click,user,url,tags,price,seen_at,session"]
    for row in range(num_rows):
        user, url = generator.integers(20), generator.integers(50)
        rows.append(
            f'{int(generator.random() < 0.3)},u{user},/page/{url},"t{user % 3},t{url % 4}",'
            f"{generator.random():.2f},{1_700_000_000 + 977 * row},s{row}"
        )
    return "\n".join(rows) + "\n"


def test_a_dataset_and_an_experiment_of_ones_own_run_as_written(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my").mkdir()
    Path("my/dataset.yaml").write_text(block_after("here `my/dataset.yaml`:", "yaml"))
    Path("shop_deepfm.yaml").write_text(block_after("here `shop_deepfm.yaml`:", "yaml"))
    Path("clicks.csv").write_text(clicks(600))
    for line in block_after("here `shop_deepfm.yaml`:", "sh").splitlines():
        words = shlex.split(line)
        assert words[0] == "recsys-had"
        quiet = ["--no-tracking"] if words[1] == "train" else []
        done = cli(*words[1:], *quiet)
        assert done.code == 0, done.err
    assert Path("runs/shop_deepfm/manifest.json").is_file()
    done = cli("predict", "runs/shop_deepfm", "--input", "clicks.csv", "--out", "scores", "--json")
    assert done.json["rows"] == 600
    vectors = pl.DataFrame({"value": ["t0", "t1", "other"], "vector": [[0.25] * 16] * 3})
    vectors.write_parquet("vectors.parquet")
    lines = block_after("**Tables out and in.**", "sh").replace("\\\n", "").splitlines()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)[1:]
        quiet = ["--no-tracking"] if words[0] == "train" else []
        done = cli(*words, *quiet)
        assert done.code == 0, done.err
    assert "fields.tags pretrained: 2 of 3 rows taken, 1 of unknown values" in done.out
    names = {path.name for path in Path("tables").iterdir()}
    assert {"fields.user.safetensors", "user.values.parquet"} < names


def test_the_formula_is_described_as_written(cli, tmp_path: Path) -> None:
    nodes = block_after("**An interaction of your own**", "yaml")
    path = tmp_path / "mine.yaml"
    indented = "".join(f"  {line}\n" for line in nodes.splitlines())
    path.write_text(f"dataset: frappe\nmodel:\n  embedding_dim: 8\n{indented}")
    done = cli("describe", path, "--json")
    assert done.code == 0, done.err
    (mine,) = [node for node in done.json["nodes"] if node["name"] == "mine"]
    assert mine["output_shape"] == [16, 8]
    # A 10 x 10 map of the means, and 45 pairs to 16 maps; the head reads 16 x 8 numbers.
    assert mine["parameters"] == 100 + 45 * 16 + 16 * 8


def test_the_numeric_section_is_described_as_written(cli, tmp_path: Path) -> None:
    section = block_after("**Numeric columns**", "yaml")
    names = {"price": "I1", "age": "I2", "clicks": "I5"}
    for written, name in names.items():
        section = section.replace(f"{written}:", f"{name}:")
    path = tmp_path / "numeric.yaml"
    path.write_text(f"dataset: synthetic\n{section}")
    done = cli("describe", path, "--json")
    assert done.code == 0, done.err
    kinds = {group["kind"]: group["columns"] for group in done.json["numeric"]}
    assert kinds["periodic"] == ["I1"]
    assert kinds["piecewise_linear"] == ["I2"]
    assert kinds["autodis"] == ["I5"]
    assert len(kinds["scale"]) == 5


def test_tables_groups_heads_and_losses_are_read_as_written(cli, tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text(block_after("**Your own data**", "yaml"))
    model = block_after("**Tables, groups, heads and losses.**", "yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(f"dataset: dataset.yaml\n{model}")
    done = cli("describe", path, "--json")
    assert done.code == 0, done.err
    sources = {source["name"]: source["shape"] for source in done.json["sources"]}
    # user, url, tags, three parts of the time and the price, which is numeric.
    assert sources == {"second": [7, 8], "fields": [7, 16], "context": [2, 16], "taste": [8]}
    assert load_experiment(path).train.loss.kind == "tri_bce"


def test_content_vectors_are_read_as_written(cli, tmp_path: Path) -> None:
    columns = block_after("**Content vectors**", "yaml")
    nodes = block_after("A node reads a vector by its name", "yaml")
    more = "  click: {kind: label}\n  user: {kind: categorical}\n  item: {kind: categorical}\n"
    head = "name: shop\nformat: {type: parquet}\nsplit: {by: given}\n"
    (tmp_path / "dataset.yaml").write_text(head + columns + more)
    indented = "".join(f"  {line}\n" for line in nodes.splitlines())
    path = tmp_path / "mine.yaml"
    path.write_text(f"dataset: dataset.yaml\nmodel:\n  embedding_dim: 4\n{indented}")
    done = cli("describe", path, "--json")
    assert done.code == 0, done.err
    assert done.json["vectors"] == {"image": 64, "title": 8}
    deep = next(node for node in done.json["nodes"] if node["name"] == "deep")
    assert deep["input_shapes"] == [[1, 2 * 4 + 64 + 8]]


def test_what_the_training_document_shows_is_what_there_is() -> None:
    text = TRAINING.read_text()
    settings = re.findall(r"^    train: (.*)$", text, re.MULTILINE)
    assert len(settings) == 2
    for one in settings:
        TrainConfig.model_validate(yaml.safe_load(one))
    columns = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert columns is not None
    card = "name: d\nformat: {type: csv}\nsplit: {by: given}\n" + columns[1].replace(
        "columns:", "columns:\n  click: {kind: label}"
    )
    assert parse_card(card).fields[2].managed is not None
    for key in re.findall(r"`train\.(\w+)", text):
        assert key in TrainConfig.model_fields, key
