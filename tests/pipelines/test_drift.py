"""``recsys-had drift``: two folders, or two splits of one."""

import re
from pathlib import Path

import pytest


def raw_users(path: Path) -> list[str]:
    return [line.split("\t")[3] for line in path.read_text().splitlines()]


def test_drift_tells_new_users_from_old_ones(cli, job, later: Path) -> None:
    done = cli("drift", job.data, later, "--json")
    assert done.code == 0, done.err
    assert (done.json["old"]["rows"], done.json["new"]["rows"]) == (3000, 2000)
    assert done.json["old"]["splits"] == ["train", "valid", "test"]
    labels = [line[0] == "1" for line in job.raw.read_text().splitlines()]
    assert done.json["old"]["click_rate"] == pytest.approx(sum(labels) / 3000)
    first = done.json["columns"][0]
    users = raw_users(later.with_name("raw.tsv"))
    new_users = sum(int(user[1:]) >= 20 for user in users) / 2000
    assert (first["name"], first["verdict"]) == ("user", "large")
    assert first["new_value_share"] == pytest.approx(new_users)
    names = {column["name"] for column in done.json["columns"]}
    assert names == {"age", "visits", "user", "item", "tags"}
    text = cli("drift", job.data, later).out.splitlines()
    assert text[0].startswith(f"old: {job.data} (train, valid, test), 3,000 rows, click rate 0.")
    assert re.split(r"  +", text[2]) == [
        *("column", "PSI", "by chance", "verdict", "id 0 old", "id 0 new", "new values")
    ]
    assert text[3].split()[:2] == ["user", f"{first['psi']:.4f}"]


def test_drift_compares_the_splits_that_are_named(cli, job, later: Path) -> None:
    def splits(*words: object) -> list[list[str]]:
        done = cli("drift", *words, "--json")
        assert done.code == 0, done.err
        return [done.json[side]["splits"] for side in ("old", "new")]

    assert splits(job.data) == [["train"], ["valid"]]
    assert splits(job.data, "--splits", "train", "test") == [["train"], ["test"]]
    assert splits(job.data, later, "--splits", "test") == [["test"], ["test"]]
    assert splits(job.data, later, "--splits", "train", "valid") == [["train"], ["valid"]]
    same = cli("drift", job.data, "--splits", "valid", "valid", "--json").json
    assert {column["psi"] for column in same["columns"]} == {0.0}
    refused = cli("drift", job.data, "--splits", "train")
    assert (refused.code, refused.err) == (
        2,
        "--splits: must name two splits of one folder; got train. Name them, or another folder.\n",
    )
    refused = cli("drift", job.data, later, "--splits", "train", "vlaid")
    assert refused.err == (f"{later}: has no row in split 'vlaid'. Did you mean 'valid'?\n")
    assert refused.out == ""
