"""Managed rows against a plain dictionary that is told the same."""

import numpy as np
import pytest
import torch

from recsys_had.model.managed import ManagedRows


class Plain:
    """The same rules in loops: values by row, values that wait with their counts."""

    def __init__(self, num_rows: int, admit_after: int) -> None:
        self.num_rows = num_rows
        self.admit_after = admit_after
        self.rows: dict[int, tuple[int, int]] = {}  # row -> value, last seen
        self.waiting: dict[int, tuple[int, int]] = {}  # value -> count, last seen

    def row_of(self, value: int) -> int:
        return next((row for row, (held, _) in self.rows.items() if held == value), 0)

    def admit(self, ids: list[int], step: int) -> list[int]:
        counts = {value: ids.count(value) for value in sorted(set(ids) - {0})}
        for value in list(counts):
            if row := self.row_of(value):
                self.rows[row] = (value, step)
                del counts[value]
        if self.admit_after > 1:
            for value, count in counts.items():
                self.waiting[value] = (self.waiting.get(value, (0, 0))[0] + count, step)
            counts = {
                value: count
                for value, (count, seen) in self.waiting.items()
                if count >= self.admit_after and seen == step
            }
            kept = sorted(
                self.waiting,
                key=lambda value: (value in counts, -self.waiting[value][1], value),
            )
            self.waiting = {value: self.waiting[value] for value in kept[: self.num_rows]}
        free = [row for row in range(1, self.num_rows + 1) if row not in self.rows][: len(counts)]
        idle = [row for row, (_, seen) in self.rows.items() if seen < step]
        idle.sort(key=lambda row: (self.rows[row][1], row))
        given = [*free, *sorted(idle[: len(counts) - len(free)])]
        due = sorted(counts, key=lambda value: (-counts[value], value))
        for row, value in zip(given, due, strict=False):
            self.rows[row] = (value, step)
            self.waiting.pop(value, None)
        return given[: len(due)]


@pytest.mark.parametrize("admit_after", [1, 2, 5])
@pytest.mark.parametrize("num_rows", [1, 7, 40])
def test_rows_come_and_go_as_in_plain_loops(num_rows: int, admit_after: int) -> None:
    generator = np.random.default_rng(num_rows + admit_after)
    rows, plain = ManagedRows(num_rows, admit_after=admit_after), Plain(num_rows, admit_after)
    changes, held = 0, set[int]()
    for step in range(1, 60):
        # A taste that drifts: values come, are frequent and go.
        drawn = (generator.zipf(1.3, 25) % 60 + step) * generator.integers(0, 2, 25)
        # Large, as hashes are.
        ids = [int(value) << 55 for value in drawn]
        told = rows.admit(torch.tensor(ids), step=step).tolist()
        assert told == plain.admit(ids, step), step
        changes += len(told) - sum(row not in held for row in told)
        held |= set(told)
        values = sorted({*ids, 3})
        assert rows(torch.tensor(values)).tolist() == [plain.row_of(value) for value in values]
    assert changes or num_rows == 40


def test_the_order_of_an_updates_ids_does_not_matter() -> None:
    one, other = ManagedRows(5, admit_after=2), ManagedRows(5, admit_after=2)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 20):
        ids = torch.randint(0, 15, (20,), generator=generator)
        one.admit(ids, step=step)
        other.admit(ids.flip(0), step=step)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, buffer in one.state_dict().items():
        assert torch.equal(buffer, other.state_dict()[name]), name


def test_a_state_that_is_loaded_decides_at_once() -> None:
    one, other = ManagedRows(3), ManagedRows(3)
    one.admit(torch.tensor([5, 6]), step=1)
    other.admit(torch.tensor([9]), step=1)
    assert other(torch.tensor([9, 5])).tolist() == [1, 0]
    with torch.no_grad():
        for name, buffer in other.state_dict().items():
            buffer.copy_(one.state_dict()[name])
    assert other(torch.tensor([9, 5, 6])).tolist() == [0, 1, 2]


def test_what_was_seen_in_another_training_is_older_than_its_first_update() -> None:
    rows = ManagedRows(2, admit_after=2)
    rows.admit(torch.tensor([5, 5, 6, 6, 7]), step=900)
    rows.admit(torch.tensor([6, 8]), step=901)
    rows.count_anew()
    assert rows.admit(torch.tensor([8]), step=1).tolist() == [1]
    assert rows(torch.tensor([5, 6, 8])).tolist() == [0, 2, 1]
    assert rows.admit(torch.tensor([7]), step=2).tolist() == [2]


def test_values_that_are_due_take_no_place_of_those_that_wait_from_before() -> None:
    """Those of another training were seen before update 1, and wait all the same."""
    rows = ManagedRows(2, admit_after=2)
    rows.admit(torch.tensor([7, 8]), step=5)
    rows.admit(torch.tensor([3, 3]), step=9)
    rows.count_anew()
    assert rows.waiting[rows.waiting > 0].tolist() == [7, 8]
    rows.waiting_seen.sub_(4)
    rows.admit(torch.tensor([4, 4]), step=1)
    assert sorted(rows.waiting[rows.waiting > 0].tolist()) == [7, 8]


def test_missing_values_and_no_values_have_row_0() -> None:
    rows = ManagedRows(3)
    assert rows.admit(torch.zeros(4, dtype=torch.int64), step=1).tolist() == []
    assert rows(torch.tensor([0, 1])).tolist() == [0, 0]
    assert rows.admit(torch.zeros(0, dtype=torch.int64), step=2).tolist() == []
    assert rows(torch.zeros(0, dtype=torch.int64)).tolist() == []
    assert not rows.keys.any()


def test_an_update_without_news_changes_nothing_that_is_sorted() -> None:
    """Sorting the keys is what costs."""
    rows = ManagedRows(3, admit_after=2)
    rows.admit(torch.tensor([5, 5, 6, 6]), step=1)
    version, waiting = rows.keys._version, rows.waiting._version
    assert rows.admit(torch.tensor([6, 5, 0]), step=2).tolist() == []
    assert (rows.keys._version, rows.waiting._version) == (version, waiting)


def test_a_value_that_is_due_and_finds_every_row_in_use_comes_next_time() -> None:
    rows = ManagedRows(1, admit_after=3)
    rows.admit(torch.tensor([5] * 3), step=1)
    assert rows.admit(torch.tensor([5, 7, 7, 7]), step=2).tolist() == []
    assert rows.admit(torch.tensor([7]), step=3).tolist() == [1]
    assert rows(torch.tensor([5, 7])).tolist() == [0, 1]
