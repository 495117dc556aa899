"""`recsys-had profile`, from encoded rows to a page."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pages" / "shop.html"


def test_the_page_and_the_json_tell_the_same(cli, job, out: Path) -> None:
    done = cli("profile", job.data, "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["page"] == str(out)
    manifest = json.loads((job.data / "manifest.json").read_text())
    assert {split: rate["rows"] for split, rate in found["splits"].items()} == manifest["rows"]
    assert {one["name"]: one["num_ids"] for one in found["fields"]} == manifest["num_embeddings"]
    assert [one["name"] for one in found["numbers"]] == manifest["dense"]
    text = out.read_text()
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    for field in found["fields"]:
        assert f"{field['auc']['auc']:.4f}" in text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_people_are_told_rates_and_where_the_page_is(cli, job, out: Path) -> None:
    lines = cli("profile", job.data, "--out", out).out.splitlines()
    assert lines[0].startswith("shop: train ") and "clicked" in lines[0]
    assert lines[-1] == f"page: {out}"


def test_a_page_is_replaced_only_if_told(cli, job, out: Path) -> None:
    out.parent.mkdir()
    out.write_text("mine")
    refused = cli("profile", job.data, "--out", out)
    assert refused.code == 2
    assert refused.err == (
        f"{out}: the file is there already. Add --overwrite to replace it, or choose another "
        "name.\n"
    )
    assert out.read_text() == "mine"
    assert cli("profile", job.data, "--out", out, "--overwrite").code == 0
    assert out.read_text() != "mine"


def test_other_names_and_folders_are_refused(cli, job, tmp_path: Path) -> None:
    done = cli("profile", job.data, "--out", tmp_path / "page.pdf")
    assert (done.code, done.err) == (2, f"{tmp_path}/page.pdf: must end in .html.\n")
    (tmp_path / "folder.html").mkdir()
    done = cli("profile", job.data, "--out", tmp_path / "folder.html")
    assert done.code == 2 and "must be a file. It is a folder." in done.err


def test_what_is_no_data_folder_is_refused_and_nothing_is_written(cli, tmp_path: Path) -> None:
    done = cli("profile", tmp_path, "--out", tmp_path / "page.html")
    assert done.code == 2
    assert "is not a data folder" in done.err
    assert list(tmp_path.iterdir()) == []
