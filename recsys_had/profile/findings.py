"""What a person should look at first, in sentences."""

from collections.abc import Mapping, Sequence

from recsys_had.profile.fields import FieldFigures
from recsys_had.profile.leakage import Suspect
from recsys_had.profile.numbers import NumberFigures
from recsys_had.profile.rates import Rate
from recsys_had.profile.words import percent

_NAMED = 6
_MORE_ABSENT = 0.05
_OTHER_RATE = 0.1


def findings(
    splits: Mapping[str, Rate],
    fields: Sequence[FieldFigures],
    numbers: Sequence[NumberFigures],
    suspects: Sequence[Suspect],
) -> list[str]:
    """Sentences about suspects, splits that differ, and columns that tell little or are absent.

    >>> findings({"train": Rate.of(8, 0)}, [], [], [])
    ['No row of train is clicked: nothing can be measured on it.']
    """
    return [
        *_about_suspects(suspects),
        *_about_splits(splits),
        *_about_columns(fields, numbers),
    ]


def _about_suspects(suspects: Sequence[Suspect]) -> list[str]:
    return [
        f"{suspect.name} alone tells clicks apart with an AUC of {suspect.auc:.4f} "
        f"({suspect.reason}). Is it written before the click? If not, leave it out."
        for suspect in suspects
    ]


def _about_splits(splits: Mapping[str, Rate]) -> list[str]:
    told = []
    for split, rate in splits.items():
        if not rate.has_both_classes:
            which = "Every row" if rate.clicks else "No row"
            told.append(f"{which} of {split} is clicked: nothing can be measured on it.")
    train = splits.get("train")
    for split, rate in splits.items():
        if train is not None and split != "train" and _differs(train, rate):
            told.append(
                f"The click rate of {split}, {percent(rate.click_rate)}, is another than that of "
                f"train, {percent(train.click_rate)}, by more than chance explains."
            )
    return told


def _differs(one: Rate, other: Rate) -> bool:
    assert one.low is not None and one.high is not None and one.click_rate is not None
    assert other.low is not None and other.high is not None and other.click_rate is not None
    apart = one.high < other.low or other.high < one.low
    return apart and abs(one.click_rate - other.click_rate) > _OTHER_RATE * one.click_rate


def _about_columns(fields: Sequence[FieldFigures], numbers: Sequence[NumberFigures]) -> list[str]:
    told = []
    constant = [
        field.name for field in fields if field.num_values + bool(field.absent_rate.rows) <= 1
    ]
    constant += [
        column.name
        for column in numbers
        if "train" in column.splits
        and column.splits["train"].least == column.splits["train"].greatest
    ]
    if constant:
        told.append(
            f"One value in all training rows, so nothing to learn from: {_named(constant)}."
        )
    mostly = [field.name for field in fields if field.absent.get("train", 0) > 0.5]
    if mostly:
        told.append(
            f"Missing or too rare for an id in more than half of the training values: "
            f"{_named(mostly)}."
        )
    for split in ("valid", "test"):
        more = [
            f"{field.name} ({percent(field.absent[split])}, not {percent(field.absent['train'])})"
            for field in fields
            if {"train", split} <= set(field.absent)
            and field.absent[split] - field.absent["train"] > _MORE_ABSENT
        ]
        if more:
            told.append(f"Oftener without an id in {split} than in train: {_named(more)}.")
        more = [
            f"{field.name} ({percent(field.unseen[split])})"
            for field in fields
            if field.unseen.get(split, 0) > _MORE_ABSENT
        ]
        if more:
            told.append(f"Values of {split} that no training row holds: {_named(more)}.")
    return told


def _named(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
