"""Tables as HTML: each scrolls inside a box of its own."""

from collections.abc import Sequence

from recsys_had.profile.words import escaped


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> str:
    """A table whose first column stays in sight.

    Args:
        title: what it holds, for those who cannot see it.
        header: names of the columns, text.
        rows: cells, HTML.
        left: columns that are text and stand on the left.

    >>> "<td>1</td>" in table("Ids", ["field", "ids"], [["C1", "1"]])
    True
    """
    names = [
        f'<th scope="col"{_css(place, left)}>{escaped(name)}</th>'
        for place, name in enumerate(header)
    ]
    lines = []
    for row in rows:
        first, *others = row
        cells = [
            f"<td{_css(place, left)}>{cell}</td>" for place, cell in enumerate(others, start=1)
        ]
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(title)}"><table>'
        f"<thead><tr>{''.join(names)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _css(place: int, left: int) -> str:
    return ' class="text"' if place < left else ""
