"""Numbers and values as a page shows them."""

import html

_MAX_LENGTH = 60
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def escaped(text: object) -> str:
    """Text that a browser shows as it stands, inside an element or a quoted attribute.

    >>> escaped('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return html.escape(str(text), quote=True)


def percent(share: float | None) -> str:
    """A share in per cent; neither 0 nor 100 unless it is.

    >>> percent(0.21834), percent(0.012), percent(1), percent(0.99999), percent(1e-9), percent(None)
    ('21.8 %', '1.20 %', '100 %', '> 99.9 %', '< 0.01 %', '-')
    """
    if share is None:
        return "-"
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share < 0.00005:
        return "< 0.01 %"
    if share >= 0.9995:
        return "> 99.9 %"
    return f"{100 * share:.2f} %" if share < 0.09995 else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """A number in four figures, or a whole one in full.

    >>> number(1234567), number(0.123456), number(-2.0), number(1e20), number(None)
    ('1,234,567', '0.1235', '-2', '1e+20', '-')
    """
    if value is None:
        return "-"
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def short(count: float) -> str:
    """A count in three figures, for an axis.

    >>> short(950), short(11_249_000), short(45_000), short(2.5e9)
    ('950', '11.2 M', '45 k', '2.5 G')
    """
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:g}"


def visible(text: str) -> str:
    r"""A raw value on one line: what cannot be seen is spelled out, what is long is cut.

    >>> visible("a\x00b"), visible(""), visible("Żółw"), visible("x" * 99)[-3:]
    ('a\\x00b', '(empty text)', 'Żółw', 'xx…')
    """
    if not text:
        return "(empty text)"
    shown = text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in shown)


def named_value(source: str, ids: str, number_of: int, text: str | None) -> str:
    """How a value of a field is called.

    >>> named_value("weekday", "vocabulary", 3, "0"), named_value("value", "hash", 3, None)
    ('Mon', 'bucket 3')
    >>> named_value("value", "managed", 255, None), named_value("hour", "vocabulary", 1, "7")
    ('hash 00000000000000ff', '7:00')
    """
    if text is None:
        return f"bucket {number_of:,}" if ids == "hash" else f"hash {number_of:016x}"
    if source == "weekday" and text in tuple("0123456"):
        return _WEEKDAYS[int(text)]
    if source == "hour":
        return f"{text}:00"
    if source == "is_weekend":
        return {"0": "Mon to Fri", "1": "weekend"}.get(text, text)
    return visible(text)
