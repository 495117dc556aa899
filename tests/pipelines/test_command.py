"""What all commands share: many values, exit codes, where problems and results go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from recsys_had.pipelines._command import Result, recsys_had_command
from recsys_had.pipelines.cli import main
from recsys_had.pipelines.export import KINDS

from recsys_had.errors import DataError


@recsys_had_command("echo")
@click.argument("name")
@click.argument("rest", nargs=-1)
@click.option("--raw", multiple=True)
@click.option("--keep", multiple=True)
@click.option("--pair", multiple=True, metavar="A=B")
@click.option("--size", default=1)
@click.option("--loud", is_flag=True)
def echo(**options: object) -> Result:
    """Gives back what it was told."""
    return Result(options, "text")


def fail_with(error: BaseException) -> int:
    @recsys_had_command("fail")
    def fail() -> Result:
        raise error

    result = CliRunner().invoke(fail, ["--json"])
    fail_with.output = result.stderr  # type: ignore[attr-defined]
    assert result.stdout == ""
    return result.exit_code


@pytest.mark.parametrize(
    ("words", "raw", "keep", "rest"),
    [
        ("d --raw a b --keep x y", ["a", "b"], ["x", "y"], []),
        ("d --raw a --raw b --keep x", ["a", "b"], ["x"], []),
        ("--raw a d", ["a"], [], []),
        ("--keep x d --raw a b", ["a", "b"], ["x"], []),
        ("d --raw a b --size 3 r", ["a", "b"], [], ["r"]),
        ("d --raw a b --loud r", ["a", "b"], [], ["r"]),
        ("d --raw=a b", ["a", "b"], [], []),
        ("d --raw a -- r --raw", ["a"], [], ["r", "--raw"]),
        ("d r s", [], [], ["r", "s"]),
    ],
)
def test_repeatable_options_take_several_values(
    words: str, raw: list[str], keep: list[str], rest: list[str]
) -> None:
    told = CliRunner().invoke(echo, ["--json", *words.split()])
    found = json.loads(told.stdout)
    assert (found["raw"], found["keep"], found["rest"], found["name"]) == (raw, keep, rest, "d")


def test_a_repeatable_option_that_tells_of_one_value_leaves_the_next_word() -> None:
    told = CliRunner().invoke(echo, ["--json", "d", "--pair", "a=1", "r", "--pair", "b=2", "s=3"])
    found = json.loads(told.stdout)
    assert (found["pair"], found["rest"]) == (["a=1", "b=2"], ["r", "s=3"])


def test_an_option_without_its_value_is_told() -> None:
    result = CliRunner().invoke(echo, ["d", "--raw"])
    assert result.exit_code == 2
    assert "requires an argument" in result.stderr


def test_exit_codes_are_those_of_the_design() -> None:
    assert fail_with(DataError("x.tsv: is wrong.")) == 2
    assert fail_with(KeyboardInterrupt()) == 130
    assert fail_with(SystemExit(143)) == 143
    assert fail_with(ZeroDivisionError()) == 1


def test_a_users_mistake_is_lines_without_a_traceback() -> None:
    fail_with(DataError([f"x.tsv:{line}: is wrong." for line in range(1, 31)]))
    lines = fail_with.output.splitlines()  # type: ignore[attr-defined]
    assert lines[:20] == [f"x.tsv:{line}: is wrong." for line in range(1, 21)]
    assert lines[20:] == ["30 problems in all; the first 20 are shown."]


def test_only_the_first_rank_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert fail_with(DataError("x.tsv: is wrong.")) == 2
    assert fail_with.output == ""  # type: ignore[attr-defined]
    assert CliRunner().invoke(echo, ["d", "--json"]).stdout == ""


def test_an_unknown_command_suggests_the_nearest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recsys_had.pipelines.cli", "trian"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no command 'trian'. Did you mean 'train'?" in done.stderr


@pytest.mark.parametrize("what", ["datasets", "experiments", "interactions"])
def test_list_names_each_with_one_line(cli, what: str) -> None:
    found = cli("list", what, "--json").json[what]
    text = cli("list", what).out.splitlines()
    assert [row["name"] for row in found] == [line.split()[0] for line in text]
    assert all(row["summary"] for row in found)
    names = {row["name"] for row in found}
    known = {
        "datasets": {"criteo", "criteo_x4", "avazu", "avazu_x4", "frappe", "movielens"},
        "experiments": {"criteo_fm", "avazu_fibinet", "frappe_dcn_v2", "movielens_deepfm"},
        "interactions": {"linear", "fm", "senet", "bilinear", "hadamard_cross", "mlp"},
    }
    assert known[what] <= names
    if what == "interactions":
        assert {"domain", "degree", "paper"} <= set(found[0])


def test_listing_something_else_is_refused(cli) -> None:
    assert cli("list", "models").code == 2


def test_the_list_of_commands_names_all_that_export_writes() -> None:
    told = CliRunner().invoke(main, ["--help"], terminal_width=200).stdout
    (line,) = [line for line in told.splitlines() if line.split()[:1] == ["export"]]
    assert [kind for kind in KINDS if kind not in line] == []


def test_a_name_that_the_terminal_cannot_write_ends_no_command(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("dataset: frappe\nmodel: {nodes: {交互: fm}}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "recsys_had.pipelines.cli", "describe", str(path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\\u4ea4\\u4e92" in done.stdout
