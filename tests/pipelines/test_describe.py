"""``recsys-had describe --draw``."""

from pathlib import Path


def test_describe_draws_every_node(cli, tmp_path: Path) -> None:
    done = cli("describe", "criteo_x4_fibinet", "--draw", tmp_path / "fibinet.svg")
    assert done.code == 0, done.err
    text = (tmp_path / "fibinet.svg").read_text()
    for name in ("fields", "linear", "pairs", "gated_pairs_senet", "gated_pairs", "deep"):
        assert f">{name}<" in text
    refused = cli("describe", "criteo_x4_fibinet", "--draw", tmp_path / "m.gif")
    assert refused.code == 2
    assert "must end in .png or .svg." in refused.err
