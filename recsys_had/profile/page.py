"""The page of a data folder: one HTML file that needs no other, and runs no script."""

from recsys_had.profile.charts import Point, bar_chart, interval, rate_chart, share_bar
from recsys_had.profile.fields import FieldFigures
from recsys_had.profile.fields_page import fields_section
from recsys_had.profile.figures import Profile
from recsys_had.profile.leakage import STRENGTH, SUSPECT_AUC, Trial
from recsys_had.profile.numbers_page import numbers_section, vectors_section
from recsys_had.profile.order import Stretch
from recsys_had.profile.rates import Rate
from recsys_had.profile.style import STYLE
from recsys_had.profile.tables import table
from recsys_had.profile.words import escaped, named_value, number, percent, short

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MAX_RANKED = 40


def page(profile: Profile) -> str:
    """One HTML document, the same for the same figures."""
    sections = [
        ("look", "What to look at first", _findings(profile)),
        ("splits", "Rows and click rate", _splits(profile)),
        ("time", "Over time", _time(profile)),
        ("leakage", "Does one column tell the label?", _leakage(profile)),
        ("fields", "Categorical fields", fields_section(profile)),
        ("numbers", "Numeric columns", numbers_section(profile)),
        ("vectors", "Content vectors", vectors_section(profile)),
    ]
    shown = [(anchor, title, body) for anchor, title, body in sections if body]
    links = "".join(f'<a href="#{anchor}">{escaped(title)}</a>' for anchor, title, _ in shown)
    bodies = "".join(
        f'<section id="{anchor}"><h2>{escaped(title)}</h2>{body}</section>'
        for anchor, title, body in shown
    )
    title = f"{profile.dataset}: the encoded rows"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escaped(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><header><h1>{escaped(profile.dataset)}</h1>"
        f'<p class="soft">{escaped(profile.description)}</p>{_tiles(profile)}'
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>{bodies}</main>\n'
        '<footer class="soft"><p>Written by <code>recsys-had profile</code>. Intervals hold the '
        "true rate in 95 of 100 cases (Wilson). Figures of values are of the training rows, in "
        "which a value that a row holds twice counts once.</p></footer></body></html>\n"
    )


def _tiles(profile: Profile) -> str:
    rows = sum(rate.rows for rate in profile.splits.values())
    clicks = sum(rate.clicks for rate in profile.splits.values())
    tiles = [
        ("rows", f"{rows:,}" if rows < 10_000_000 else short(rows)),
        ("click rate", percent(clicks / rows)),
        ("fields", number(len(profile.fields))),
        ("their ids", short(sum(field.num_ids for field in profile.fields))),
        ("numbers", number(len(profile.numbers))),
        ("leakage suspects", number(len(profile.suspects))),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{escaped(value)}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{cells}</dl>'


def _findings(profile: Profile) -> str:
    if not profile.findings:
        return "<p>Nothing stands out.</p>"
    # Those about suspects come first, one each.
    suspects = len(profile.suspects)
    lines = "".join(
        f'<li class="{"suspect" if place < suspects else "finding"}">{escaped(sentence)}</li>'
        for place, sentence in enumerate(profile.findings)
    )
    return f'<ul class="findings">{lines}</ul>'


def _splits(profile: Profile) -> str:
    rates = profile.splits
    total = Rate.of(
        sum(rate.rows for rate in rates.values()), sum(rate.clicks for rate in rates.values())
    )
    low = min(rate.low or 0.0 for rate in rates.values())
    high = max(rate.high or 0.0 for rate in rates.values())
    rows = [
        [
            escaped(split),
            f"{rate.rows:,}",
            percent(rate.click_rate),
            interval(rate, mean=total.click_rate, low=low, high=high),
            f"{percent(rate.low)} to {percent(rate.high)}",
            f"{rate.clicks:,}",
            percent(rate.rows / total.rows),
        ]
        for split, rate in rates.items()
    ]
    drawn = f"{percent(low)} to {percent(high)}"
    header = ["split", "rows", "click rate", drawn, "95 % interval", "clicks", "of all rows"]
    told = table("Rows and click rate by split", header, rows)
    if profile.weights:
        told += "<h3>Weights</h3>" + table(
            "Weights by split",
            ["split", "least", "mean", "greatest", "zero", "click rate by weight"],
            [
                [
                    escaped(split),
                    number(found.weights.least),
                    number(found.weights.mean),
                    number(found.weights.greatest),
                    percent(found.weights.zeros),
                    percent(found.click_rate),
                ]
                for split, found in profile.weights.items()
            ],
        )
        told += (
            '<p class="soft">All other figures of this page count rows, whatever they weigh.</p>'
        )
    return told


def _time(profile: Profile) -> str:
    parts = [_date_part(field) for field in profile.fields if field.is_date_part and field.top]
    return f'{_row_order(profile)}<div class="pair">{"".join(parts)}</div>'


def _row_order(profile: Profile) -> str:
    """Charts along the raw rows' order."""
    size = len(profile.order)
    marks = {size * quarter // 4 for quarter in range(4)}
    points = [
        Point(
            f"rows {stretch.first:,} to {stretch.last:,}",
            stretch.rate,
            short(stretch.first) if place in marks else "",
        )
        for place, stretch in enumerate(profile.order)
    ]
    legend = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{split}" width="10" '
        f'height="10" rx="2"/></svg>{split}</li>'
        for split in profile.splits
    )
    stacked = [(split, _rows_of(profile.order, split)) for split in profile.splits]
    return (
        "<h3>Along the row order</h3><figure><figcaption>Click rate with its 95 % interval, and "
        f"rows by split, in {size} stretches of the raw files. This is time where the files are "
        "in the order of time, as most logs are; the encoded rows do not say whether they are."
        "</figcaption>"
        + rate_chart(points, title="Click rate along the row order", joined=True)
        + bar_chart(points, title="Rows along the row order", parts=stacked)
        + f'<ul class="legend">{legend}</ul></figure>'
    )


def _rows_of(order: list[Stretch], split: str) -> list[int]:
    return [stretch.rows[split] for stretch in order]


def _date_part(field: FieldFigures) -> str:
    """Charts of hours or days, none left out: a gap is a finding."""
    rates = {found.value: found.rate for found in field.top}
    size = {"hour": 24, "weekday": 7, "is_weekend": 2}[field.source]
    every = 3 if field.source == "hour" else 1
    points = []
    for value in range(size):
        label = named_value(field.source, field.ids, value, str(value))
        rate = rates.get(str(value), Rate.of(0, 0))
        # On a phone there is no room for minutes.
        tick = label.removesuffix(":00") if value % every == 0 else ""
        points.append(Point(label, rate, tick))
    name = escaped(field.name)
    kind = {"hour": "hour of the day", "weekday": "day of the week", "is_weekend": "weekend"}
    return (
        f"<div><h3>{name}: {kind[field.source]} (UTC)</h3><figure><figcaption>Training rows of "
        f"column {escaped(field.column)}: click rate with its 95 % interval, and rows.</figcaption>"
        + rate_chart(points, title=f"Click rate by {field.name}", joined=False)
        + bar_chart(points, title=f"Rows by {field.name}")
        + "</figure></div>"
    )


def _leakage(profile: Profile) -> str:
    ranking = profile.ranking
    if not ranking:
        return "<p>No split has clicked and other rows, so no AUC can be measured.</p>"
    suspects = {suspect.name: suspect.reason for suspect in profile.suspects}
    rows = []
    for name, auc in ranking[:_MAX_RANKED]:
        tag = ' <span class="tag suspect">suspect</span>' if name in suspects else ""
        bar = share_bar(max(0.0, 2 * auc.auc - 1), css="suspect" if name in suspects else "")
        rows.append(
            [
                f"{escaped(name)}{tag}",
                f"{auc.auc:.4f}",
                bar,
                f"{auc.low:.3f} to {auc.high:.3f}",
                escaped(auc.score),
            ]
        )
    told = "".join(
        f"<p><b>{escaped(name)}</b> is suspect: {escaped(reason)}.</p>"
        for name, reason in suspects.items()
    )
    if not told:
        told = (
            f"<p>No column reaches {SUSPECT_AUC} alone, and none stands far above the others.</p>"
        )
    rest = len(ranking) - _MAX_RANKED
    more = f'<p class="soft">{rest} more columns tell less.</p>' if rest > 0 else ""
    header = ["column", "AUC alone", "0.5 to 1", "95 % interval", "scored by"]
    return f"{_how(profile.trial)}{told}{table('AUC of each column alone', header, rows)}{more}"


def _how(trial: Trial) -> str:
    about = "about " if trial.every > 1 else ""
    where = f"{about}{trial.rows:,} rows of {trial.split}"
    if trial.split == "train":
        where = (
            f"{about}{trial.rows:,} training rows, every second one, with rates learned from "
            "the others (no other split has both classes)"
        )
    return (
        f'<p class="soft">AUC of one column alone, measured on {escaped(where)}. A row\'s score is '
        f"the click rate of its value in training rows, drawn towards the mean as by {STRENGTH} "
        "average rows; several values count by their mean; numbers by their own value in either "
        "direction, or by the click rate of 32 bins of equally many rows. A suspect may be an "
        "honest strong column: ask when it is written.</p>"
    )
