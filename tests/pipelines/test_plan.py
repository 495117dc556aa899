"""``recsys-had plan``: clusters that are not there, planned on a machine without a GPU."""

from pathlib import Path

import pytest

CRITEO = ("plan", "criteo_1tb_dlrm_dcn_v2", "--json", "--world-size")
# 204.18 million rows of 128 numbers, with Adagrad's as many again.
ROWS = 204_184_588


@pytest.mark.parametrize(("world_size", "hosts"), [(8, 1), (12, 2), (64, 8), (256, 32)])
def test_criteo_1tb_fits_on_h100_hosts(cli, world_size: int, hosts: int) -> None:
    found = cli(*CRITEO, world_size).json
    assert found["fits"] is True
    assert (found["world_size"], found["hosts"]) == (world_size, hosts)
    assert sum(table["num_embeddings"] for table in found["tables"]) == ROWS
    assert len(found["rank_bytes"]) == world_size
    room = found["hbm_bytes"] - found["reserved_bytes"]
    assert max(found["rank_bytes"]) <= room
    # Every number of a table and its state lies somewhere; buffers come on top.
    held = sum(table["size_bytes"] for table in found["tables"])
    assert held >= ROWS * 128 * 2 * 4
    assert sum(found["rank_bytes"]) >= held
    for table in found["tables"]:
        assert table["ranks"] and max(table["ranks"]) < world_size
        if table["sharding"] == "table_wise":
            assert len(table["ranks"]) == 1
        if table["sharding"] == "table_row_wise":
            assert len(table["ranks"]) == world_size // hosts
        if table["sharding"] == "data_parallel":
            assert len(table["ranks"]) == world_size
    assert set(found["step_ms"]) == {
        "input distribution",
        "lookup",
        "output distribution",
        "gradient distribution",
        "update",
        "network",
        "network's gradients",
    }
    assert all(time >= 0 for time in found["step_ms"].values())


def test_half_tables_take_half_and_their_optimizer_state_does_not(cli) -> None:
    words = ("train.table_precision=fp16", "train.embedding_optimizer=adagrad")
    found = cli(*CRITEO, 8, *words).json
    held = sum(table["size_bytes"] for table in found["tables"])
    assert ROWS * 128 * (2 + 4) <= held < ROWS * 128 * 6 * 1.02
    # What the planner fits into memory is as much.
    assert sum(found["rank_bytes"]) >= held


def test_more_values_a_row_and_a_slower_machine_take_longer(cli) -> None:
    one = cli(*CRITEO, 8).json
    many = cli(*CRITEO, 8, "--pooling-factor", *(f"C{n}=40" for n in range(1, 27))).json
    slow = cli(*CRITEO, 8, "--machine", "a100").json
    assert many["step_ms"]["lookup"] > 3 * one["step_ms"]["lookup"]
    assert slow["step_ms"]["lookup"] > one["step_ms"]["lookup"]
    assert slow["step_ms"]["network"] == pytest.approx(one["step_ms"]["network"] * 67 / 19.5, 1e-3)
    # 3 passes of the counted operations, at half of 67 TFLOP/s.
    flops = cli("describe", "criteo_1tb_dlrm_dcn_v2", "--json").json["flops_per_row"]
    assert one["step_ms"]["network"] == pytest.approx(3 * flops * 8192 / 33.5e9, 1e-3)


def test_what_does_not_fit_says_what_would(cli) -> None:
    found = cli(*CRITEO, 2, "--hbm-gb", 40).json
    assert found["fits"] is False
    assert found["tables"] == []
    # 209.08 GB of tables; 40 GB less 15 % and the dense part's 16 bytes a number.
    room = 0.85 * 40e9 - 16 * found["dense_parameters"]
    at_least = -(-ROWS * 1024 // int(room))
    assert (
        f"take 209.1 GB, and a GPU has room for {room / 1e9:.1f}: {at_least} GPUs at least"
        in (found["why_not"])
    )
    text = cli(*CRITEO[:2], "--world-size", 2, "--hbm-gb", 40)
    assert text.code == 0
    assert text.out.splitlines()[0].startswith("2 GPUs on 1 host (8 H100 SXM of 80 GB")
    assert text.out.splitlines()[1].startswith("does not fit: ")


def test_data_and_files_tell_sizes_too(cli, job, tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.yaml"
    words = ("plan", job.experiment, "--world-size", 4, "--json")
    of_data = cli(*words, "--data", job.data)
    assert of_data.code == 0, of_data.err
    names = [table["name"] for table in of_data.json["tables"]]
    assert {"fields.user", "fields.item", "linear.tags"} <= set(names)
    sizes.write_text(
        "visits: 30\nuser: {num_embeddings: 9000, pooling_factor: 2}\nitem: 7\ntags: 5\n"
    )
    of_file = cli(*words, "--cardinalities", sizes)
    assert of_file.code == 0, of_file.err
    assert of_file.json["tables"][0]["num_embeddings"] == 9000
    assert "Give one of them" in cli(*words, "--cardinalities", sizes, "--data", job.data).err
    assert "no published sizes of its tables are bundled. Give --data" in cli(*words).err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("user: 3\n", "the field 'item' is missing."),
        ("usr: 3\n", "'usr' is no field of the dataset card. Did you mean 'user'?"),
        ("user: 0\n", "user: num_embeddings must be a whole number from 1 on; got 0."),
        ("user: true\n", "user: num_embeddings must be a whole number from 1 on; got True."),
        ("user: {num_embeddings: 3, pooling: 2}\n", "user: unknown key 'pooling'. Known are num_"),
        (
            "user: {num_embeddings: 3, pooling_factor: 0}\n",
            "user: pooling_factor must be a number above 0; got 0.",
        ),
        ("- 3\n", "must be a mapping"),
    ],
)
def test_a_file_of_sizes_that_is_wrong_is_told(
    cli, job, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "sizes.yaml"
    path.write_text(content)
    done = cli("plan", job.experiment, "--world-size", 4, "--cardinalities", path)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--machine", "h300"), "--machine h300: is not known. Did you mean 'h200'?"),
        (("--hosts", "3"), "--world-size 8: cannot be dealt evenly to 3 hosts of up to 8 GPUs."),
        (("--pooling-factor", "C99=3"), "--pooling-factor C99=3: no such field."),
        (("--pooling-factor", "C1=x"), "--pooling-factor C1=x: must be FIELD=NUMBER, a number"),
        (("--pooling-factor", "C1=nan"), "--pooling-factor C1=nan: must be FIELD=NUMBER"),
        (("--draw", "plan.pdf"), "--draw plan.pdf: must end in .png."),
        (("train.sharding.tables.C99=row_wise",), "the model has no table 'C99'."),
    ],
)
def test_what_is_asked_wrongly_is_told(cli, words: tuple[str, ...], told: str) -> None:
    done = cli(*CRITEO, 8, *words)
    assert done.code == 2
    assert told in done.err


def test_both_moments_of_lazy_adam_are_counted(cli) -> None:
    found = cli(*CRITEO, 64, "train.embedding_optimizer=lazy_adam").json
    divided = [table for table in found["tables"] if table["sharding"] != "data_parallel"]
    assert divided
    for table in divided:
        assert table["size_bytes"] == table["num_embeddings"] * 3 * 128 * 4


def test_the_experiments_own_sharding_is_kept(cli) -> None:
    done = cli(*CRITEO, 8, "train.sharding=row_wise").json
    assert {table["sharding"] for table in done["tables"]} == {"row_wise"}
    other = cli(*CRITEO, 8, "train.sharding.default=auto", "train.sharding.tables.C6=row_wise").json
    kinds = {table["name"]: table["sharding"] for table in other["tables"]}
    assert kinds["fields.C6"] == "row_wise" != kinds["fields.C17"]


def test_the_picture_is_a_png(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    assert cli(*CRITEO, 8, "--draw", path).code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    refused = cli(*CRITEO, 8, "--draw", tmp_path / "no" / "plan.png")
    assert refused.code == 2
    assert "cannot be written: No such file or directory." in refused.err
