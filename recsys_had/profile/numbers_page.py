"""The page's sections on numeric columns and content vectors."""

from recsys_had.profile.charts import Point, bar_chart, rate_chart
from recsys_had.profile.figures import Profile
from recsys_had.profile.numbers import NumberFigures
from recsys_had.profile.tables import table
from recsys_had.profile.words import escaped, number, percent


def numbers_section(profile: Profile) -> str:
    """All numeric columns; nothing where there are none."""
    if not profile.numbers:
        return ""
    levels = list(profile.numbers[0].quantiles)
    header = ["column", "transform", "least", *(f"{level} %" for level in levels), "greatest"]
    header += ["mean", *(f"zero in {split}" for split in profile.splits), "AUC alone"]
    rows = []
    for column in profile.numbers:
        train = column.splits.get("train")
        rows.append(
            [
                escaped(column.name),
                escaped(column.transform),
                number(train.least if train else None),
                *(number(column.quantiles.get(level)) for level in levels),
                number(train.greatest if train else None),
                number(train.mean if train else None),
                *(percent(column.splits[split].zeros) for split in profile.splits),
                "-" if column.auc is None else f"{column.auc.auc:.4f}",
            ]
        )
    return (
        '<p class="soft">As the model reads them, after the transform; a missing number is 0. '
        "Figures are of the training rows and exact, quantiles too.</p>"
        + table("Numeric columns", header, rows, left=2)
        + "<h3>Each column</h3>"
        + "".join(_number(column, profile) for column in profile.numbers)
    )


def _number(column: NumberFigures, profile: Profile) -> str:
    auc = "" if column.auc is None else f" · AUC {column.auc.auc:.4f} by {column.auc.score}"
    size = len(column.histogram)
    points = [
        Point(
            f"{number(bar.low)} to {number(bar.high)}",
            bar.rate,
            number(bar.low) if size < 4 or place % (size // 4) == 0 else "",
        )
        for place, bar in enumerate(column.histogram)
    ]
    rows = [
        [
            escaped(split),
            number(column.splits[split].least),
            number(column.splits[split].mean),
            number(column.splits[split].greatest),
            percent(column.splits[split].zeros),
        ]
        for split in profile.splits
    ]
    charts = (
        "<figure><figcaption>Click rate with its 95 % interval, and rows: training rows from the "
        "first to the last percentile; the outer bars hold what lies beyond, too.</figcaption>"
        + rate_chart(points, title=f"Click rate by {column.name}", joined=False)
        + bar_chart(points, title=f"Rows by {column.name}")
        + "</figure>"
    )
    return (
        f"<details><summary><b>{escaped(column.name)}</b><span>{escaped(column.transform)}"
        f"{escaped(auc)}</span></summary>"
        f'<div class="inside">{charts}'
        + table(f"{column.name} by split", ["split", "least", "mean", "greatest", "zero"], rows)
        + "</div></details>"
    )


def vectors_section(profile: Profile) -> str:
    """All content vectors; nothing where there are none."""
    if not profile.vectors:
        return ""
    header = [
        "vector",
        "split",
        "size",
        "missing",
        "least length",
        "mean length",
        "greatest length",
    ]
    rows = [
        [
            escaped(vector.name),
            escaped(split),
            f"{vector.size:,}",
            percent(lengths.zeros),
            number(lengths.least),
            number(lengths.mean),
            number(lengths.greatest),
        ]
        for vector in profile.vectors
        for split, lengths in vector.lengths.items()
    ]
    return (
        '<p class="soft">A vector of zeros counts as missing: a missing one is encoded so.</p>'
        + table("Content vectors", header, rows, left=2)
    )
