"""The page's section on categorical fields: an overview of all, then each under its name."""

from collections.abc import Mapping

from recsys_had.profile.charts import interval, share_bar
from recsys_had.profile.fields import FieldFigures
from recsys_had.profile.figures import Profile
from recsys_had.profile.rates import Rate
from recsys_had.profile.tables import table
from recsys_had.profile.words import escaped, named_value, percent

_SOURCES = {
    "value": "one value a row",
    "multi": "several values a row",
    "bucket": "whole number, in logarithmic buckets",
    "hour": "hour of a time",
    "weekday": "weekday of a time",
    "is_weekend": "weekend of a time",
}


def fields_section(profile: Profile) -> str:
    """All categorical fields; nothing where there are none."""
    if not profile.fields:
        return ""
    header = ["field", "ids", "values", "covered", "", *_absent_header(profile), "AUC alone"]
    rows = [
        [
            escaped(field.name),
            f"{field.num_ids:,}",
            _values(field),
            percent(_covered(field)),
            share_bar(_covered(field)),
            *_absent_cells(field.absent, profile),
            "-" if field.auc is None else f"{field.auc.auc:.4f}",
        ]
        for field in profile.fields
    ]
    mean = _mean(profile)
    return (
        '<p class="soft">Ids count id 0; values are those in training rows. What is covered has an '
        "id of its own. Id 0 is both a missing value and one without an id, because it is unseen "
        "or rarer than min_count: encoded rows do not tell them apart. Where ids are hashes every "
        "value has one, and id 0 is a missing value alone.</p>"
        + table("Categorical fields", header, rows)
        + "<h3>Each field</h3>"
        + "".join(_field(field, mean) for field in profile.fields)
    )


def _absent_header(profile: Profile) -> list[str]:
    return [f"id 0 in {split}" for split in profile.splits]


def _absent_cells(shares: Mapping[str, float], profile: Profile) -> list[str]:
    return [percent(shares.get(split)) for split in profile.splits]


def _covered(field: FieldFigures) -> float:
    return 1 - field.absent.get("train", 1.0)


def _values(field: FieldFigures) -> str:
    return f"{field.num_values:,}" if field.sampled_share == 1 else f"about {field.num_values:,}"


def _mean(profile: Profile) -> float | None:
    return profile.splits["train"].click_rate if "train" in profile.splits else None


def _field(field: FieldFigures, mean: float | None) -> str:
    kind = _SOURCES.get(field.source, field.source)
    auc = "" if field.auc is None else f" · AUC {field.auc.auc:.4f}"
    return (
        f"<details><summary><b>{escaped(field.name)}</b><span>{escaped(kind)} · "
        f"{_values(field)} values · {percent(_covered(field))} covered{auc}</span></summary>"
        f'<div class="inside"><p class="soft">{_about(field)}</p><div class="pair">'
        f"<div><h3>Most frequent values</h3>{_top(field, mean)}</div>"
        f"<div><h3>Coverage by min_count</h3>{_coverage(field)}</div></div></div></details>"
    )


def _about(field: FieldFigures) -> str:
    told = [
        {
            "vocabulary": f"Vocabulary with min_count {field.min_count}",
            "hash": f"Ids by a hash into {field.num_ids - 1:,} buckets; a value below is a bucket",
            "managed": f"Training gives out {field.num_ids - 1:,} rows; a value below is a hash",
        }[field.ids]
    ]
    if field.column != field.name:
        told.append(f"made of column {field.column}")
    if field.source == "multi":
        told.append(f"{field.values_per_row:.3g} values in a training row")
    if field.sampled_share < 1:
        share = percent(field.sampled_share)
        told.append(f"estimated from a uniform sample of {share} of its values")
    for split, unseen in field.unseen.items():
        told.append(f"{percent(unseen)} of the values in {split} are in no training row")
    return escaped("; ".join(told) + ".")


def _top(field: FieldFigures, mean: float | None) -> str:
    named: list[tuple[str, float | None, Rate]] = [
        (named_value(field.source, field.ids, found.id, found.value), found.share, found.rate)
        for found in field.top
    ]
    if field.absent_rate.rows:
        absent = field.absent_rate
        what = "missing" if field.ids != "vocabulary" else "without an id"
        # Of all values, where a row holds one; else of rows it is not known.
        share = field.absent.get("train", 0.0) if field.source != "multi" else None
        named.append((f"({what})", share, absent))
    scale = 1.05 * max((rate.high or 0.0 for _, _, rate in named), default=1.0)
    rows = [
        [
            escaped(name),
            f"{rate.rows:,}",
            percent(share),
            percent(rate.click_rate),
            interval(rate, mean=mean, high=scale),
        ]
        for name, share, rate in named
    ]
    if not rows:
        return '<p class="none">No training row holds a value.</p>'
    header = ["value", "rows", "of rows", "click rate", "0 to " + percent(scale)]
    return table(f"Most frequent values of {field.name}", header, rows)


def _coverage(field: FieldFigures) -> str:
    rows = [
        [
            f"{step.min_count}",
            "not known" if step.values is None else f"{step.values:,}",
            "" if step.share is None else percent(step.share),
            "" if step.share is None else share_bar(step.share),
        ]
        for step in field.coverage
    ]
    header = ["min_count", "values kept", "covered", ""]
    told = ""
    if any(step.values is None for step in field.coverage):
        told = (
            f'<p class="soft">Values that fewer than {field.min_count} training rows hold got id 0 '
            "and left no count: what a lower min_count would keep is not known.</p>"
        )
    if field.sampled_share < 1:
        told += '<p class="soft">Values kept are those of the sample.</p>'
    return table(f"Coverage of {field.name} by min_count", header, rows) + told
