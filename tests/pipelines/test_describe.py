"""``recsys-had describe --draw``."""

from pathlib import Path

import pytest

from recsys_had.experiment_file import bundled_experiments


def test_describe_draws_every_node(cli, tmp_path: Path) -> None:
    done = cli("describe", "criteo_x4_fibinet", "--draw", tmp_path / "fibinet.svg")
    assert done.code == 0, done.err
    text = (tmp_path / "fibinet.svg").read_text()
    for name in ("fields", "linear", "pairs", "gated_pairs", "deep"):
        assert f">{name}<" in text
    refused = cli("describe", "criteo_x4_fibinet", "--draw", tmp_path / "m.gif")
    assert refused.code == 2
    assert "must end in .png or .svg." in refused.err


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("frappe_lr", {"fields": "10 x 1"}),
        ("frappe_deepfm", {"fields": "10 x 10"}),
        ("frappe_fwfm", {"fields": "10 x 10", "vectors": "tables of their own"}),
        ("frappe_finalmlp", {"fields": "embeddings", "first_context": "tables of their own"}),
        ("frappe_ppnet", {"fields": "embeddings", "context": "some fields"}),
        ("frappe_finalnet_2b", {"logit ": "mean of the heads and a bias"}),
    ],
)
def test_describe_draws_what_nodes_read(
    cli, tmp_path: Path, name: str, drawn: dict[str, str]
) -> None:
    done = cli("describe", name, "--draw", tmp_path / "m.svg")
    assert done.code == 0, done.err
    text = (tmp_path / "m.svg").read_text()
    for box, line in drawn.items():
        assert f">{box}<" in text
        assert f">{line}<" in text


@pytest.mark.parametrize("name", bundled_experiments())
def test_every_bundled_experiment_is_described(cli, name: str) -> None:
    done = cli("describe", name, "--json")
    assert done.code == 0, done.err
    found = done.json
    nodes = found["nodes"]
    outside = [*nodes, *found["numeric"]]
    assert found["dense_parameters"] == sum(part["parameters"] for part in outside) + 1
    assert found["flops_per_row"] >= sum(node["flops_per_row"] for node in nodes)
    # To flatten moves nothing.
    assert all(node["bytes_per_row"] > 0 for node in nodes if node["flops_per_row"])
