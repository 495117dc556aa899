"""The picture of a model: where boxes stand, what a file holds."""

from pathlib import Path

import pytest

from recsys_had.graph_plot import Box, columns, draw_graph

BOXES = [
    Box("fields", ("39 x 16",), kind="source"),
    Box("linear", reads=("fields",)),
    Box("gate", reads=("fields",)),
    Box("pairs", reads=("gate",)),
    Box("deep", reads=("pairs", "fields")),
    Box("logit", reads=("linear", "deep"), kind="logit"),
]


def test_a_box_stands_right_of_all_it_reads() -> None:
    assert columns(BOXES) == {
        "fields": 0,
        "linear": 1,
        "gate": 1,
        "pairs": 2,
        "deep": 3,
        "logit": 4,
    }


@pytest.mark.parametrize(("name", "begins"), [("m.png", b"\x89PNG"), ("m.svg", b"<?xml")])
def test_the_same_boxes_are_the_same_bytes(tmp_path: Path, name: str, begins: bytes) -> None:
    draw_graph(BOXES, tmp_path / name, title="model")
    first = (tmp_path / name).read_bytes()
    draw_graph(BOXES, tmp_path / name, title="model")
    assert first.startswith(begins)
    assert (tmp_path / name).read_bytes() == first


def test_an_svg_holds_every_name_as_text(tmp_path: Path) -> None:
    draw_graph(BOXES, tmp_path / "m.svg", title="the model")
    text = (tmp_path / "m.svg").read_text()
    for word in ("the model", "39 x 16", *(box.name for box in BOXES)):
        assert f">{word}<" in text


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.gif: must end in \.png or \.svg\.$"):
        draw_graph(BOXES, tmp_path / "m.gif", title="model")
