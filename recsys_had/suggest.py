"""What was probably meant by a name that is unknown."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the closest known name, or what is known.

    >>> nearest("learning_rat", ["learning_rate", "epochs"])
    " Did you mean 'learning_rate'?"
    >>> nearest("zzz", ["b", "a"])
    ' Known: a, b.'
    """
    names = sorted(filter(None, known))
    by_lower = {other.lower(): other for other in names}
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if name.lower() in by_lower:
        match = [by_lower[name.lower()]]
    if match:
        return f" Did you mean '{match[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""
