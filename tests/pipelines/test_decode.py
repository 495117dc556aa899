"""``recsys-had decode``: raw values again, or one line per problem and nothing left."""

from pathlib import Path

import polars as pl


def raw_users(path: Path) -> list[str]:
    return [line.split("\t")[3] for line in path.read_text().splitlines()]


def test_decode_writes_the_rows_and_says_what_became_of_each_column(
    cli, job, tmp_path: Path
) -> None:
    done = cli("decode", job.data, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == job.ingested["rows"]
    assert done.json["format"] == "parquet"
    assert done.json["decoded"]["user"] == "value"
    assert done.json["not_decoded"] == {}
    assert done.json["missing_as"] == {"age": 0}
    rows = pl.read_parquet(tmp_path / "out" / "*" / "part-*.parquet").sort("row_id")
    assert rows["user"].to_list() == raw_users(job.raw)
    told = cli("decode", job.data, "--out", tmp_path / "out", "--overwrite")
    assert told.code == 0, told.err
    assert told.out.startswith("3,000 rows decoded: train ")
    assert "age: a missing number was encoded as 0.0, which reads 0\n" in told.out


def test_decode_takes_several_splits_and_columns_after_one_option(cli, job, tmp_path: Path) -> None:
    done = cli(
        *("decode", job.data, "--out", tmp_path / "out", "--split", "valid", "test"),
        *("--columns", "user", "label", "--rows", "5", "--format", "tsv", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["rows"] == {"valid": 5, "test": 5}
    lines = (tmp_path / "out" / "test" / "part-00000.tsv").read_text().splitlines()
    assert lines[0] == "row_id\tuser\tlabel"
    users, raw = raw_users(job.raw), job.raw.read_text().splitlines()
    for line in lines[1:]:
        row_id, user, label = line.split("\t")
        assert user == users[int(row_id)]
        assert float(label) == float(raw[int(row_id)][0])


def test_decode_refuses_what_is_not_there(cli, job, tmp_path: Path) -> None:
    refused = cli("decode", tmp_path, "--out", tmp_path / "out")
    assert refused.code == 2
    assert "is not a data folder: manifest.json is missing" in refused.err
    refused = cli("decode", job.data, "--out", job.data, "--overwrite")
    assert refused.code == 2
    assert refused.err.endswith("holds a result that is no decoded data. Choose another folder.\n")
    assert cli("decode", job.data, "--out", tmp_path / "out", "--rows", "0").code == 2
