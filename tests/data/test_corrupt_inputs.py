"""Damaged files of real rows: each is refused with its file and line, or its wrong rows are.

What the rows say is judged by a plain reader that shares no code with recsys_had.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.corruption import Damage, Mutation
from tests.data.damaged import (
    FILES,
    WrongError,
    attempt,
    fail_with,
    first_rows,
    must_be_as_judged,
    must_be_refused,
    read_file,
)
from tests.data.plain_reader import UnreadableError, judge


def check(mutation: Mutation, path: Path) -> None:
    name = f"{mutation.kind}{mutation.suffix}, {mutation.name}"
    stopped, sifted = (
        attempt(name, functools.partial(read_file, path, mutation.kind, reject=reject))
        for reject in (False, True)
    )
    if mutation.whole:
        must_be_refused(name, stopped, path, mutation.line)
        must_be_refused(name, sifted, path, mutation.line)
        return
    try:
        judged = judge(mutation.plain or mutation.data, mutation.kind)
    except UnreadableError as cause:
        must_be_refused(name, stopped, path, cause.line)
        must_be_refused(name, sifted, path, cause.line)
        return
    if mutation.line is not None:  # a line end among the values is a line more
        bad = {found.line for found in judged if found.values is None}
        assert bad <= {mutation.line, mutation.line + 1}, f"{name}: the reference is wrong"
    must_be_as_judged(name, judged, stopped, sifted, path)


@pytest.fixture(scope="module")
def damage(samples: Path) -> Callable[[str], Damage]:
    """The damage a dataset's first rows can suffer."""

    @functools.cache
    def make(kind: str) -> Damage:
        return Damage(kind, b"".join(first_rows(samples, kind)), FILES[kind][1])

    return make


@pytest.mark.parametrize("kind", ["criteo", "avazu"])
def test_every_damaged_text_is_told_with_its_line_or_its_rows_are_rejected(
    kind: str, damage: Callable[[str], Damage], tmp_path: Path
) -> None:
    wrong = []
    number = 0
    for number, mutation in enumerate(damage(kind).all(), start=1):  # noqa: B007
        path = tmp_path / f"rows{mutation.suffix}"
        path.write_bytes(mutation.data)
        try:
            check(mutation, path)
        except WrongError as error:
            wrong.append(str(error))
    fail_with(wrong)
    assert number >= 300
