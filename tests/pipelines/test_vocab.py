"""``recsys-had vocab``: entries of a vocabulary that a person can read."""

from pathlib import Path

import polars as pl


def test_vocab_shows_the_most_frequent_values_and_those_asked_for(cli, job) -> None:
    table = pl.read_parquet(job.data / "vocab" / "user.parquet")
    done = cli("vocab", job.data, "user", "--json")
    assert done.code == 0, done.err
    assert done.json["num_embeddings"] == 21
    entries = done.json["entries"]
    assert [entry["value"] for entry in entries] == table["value"].to_list()
    trained = job.ingested["rows"]["train"]
    assert entries[0]["share"] == table["count"][0] / trained
    done = cli(
        *("vocab", job.data, "user", "--top", "1", "--find", "u3", "nobody", "--id", "0", "2"),
        "--json",
    )
    found = [(entry["id"], entry["value"], entry["count"]) for entry in done.json["entries"]]
    of_u3 = table.row(by_predicate=pl.col("value") == "u3")
    assert found == [
        (1, table["value"][0], table["count"][0]),
        (of_u3[2], "u3", of_u3[1]),
        (0, "nobody", None),
        (0, None, None),
        (2, table["value"][1], table["count"][1]),
    ]
    lines = cli("vocab", job.data, "user", "--find", "u3", "nobody").out.splitlines()
    assert lines[0] == (
        f"user: 20 values over {trained:,} training rows; id 0 is a missing or an unseen value"
    )
    assert lines[1].split() == ["id", "count", "share", "value"]
    assert lines[2].split() == [
        *(f"{of_u3[2]}", f"{of_u3[1]}", f"{of_u3[1] / trained:.2%}"),
        "u3",
    ]
    assert lines[3].split() == ["0", "nobody", "(unseen)"]


def test_vocab_refuses_unknown_fields_and_ids_and_columns_without_a_vocabulary(
    cli, job, tmp_path: Path
) -> None:
    refused = cli("vocab", job.data, "usr")
    assert (refused.code, refused.err) == (
        2,
        "usr: the data have no such field. Did you mean 'user'?\n",
    )
    refused = cli("vocab", job.data, "user", "--id", "21", "--id=-1")
    assert refused.err.splitlines() == [
        "--id 21: user has ids from 0 to 20.",
        "--id -1: user has ids from 0 to 20.",
    ]
    card = tmp_path / "hashed.yaml"
    card.write_text(
        job.card.read_text().replace(
            "user: {kind: categorical}", "user: {kind: categorical, hash_buckets: 9}"
        )
    )
    assert cli("ingest", card, "--raw", job.raw, "--out", tmp_path / "data").code == 0
    refused = cli("vocab", tmp_path / "data", "user")
    assert (refused.code, refused.err) == (
        2,
        "user: must have a vocabulary. Its ids are hashes of the values, which were not kept.\n",
    )
