"""The columns beside the score that a user may ask for, by the words he asks with."""

from recsys_had.explanation import MakeExplanation
from recsys_had.scoring import MakeColumns, MakeNovelty

# The method of novelty that the run was given last.
LAST = "last"


def extra_columns(
    *, explain: int | None = None, baseline: str = "mean", novelty: str | None = None
) -> list[MakeColumns]:
    """What makes the columns that are asked for.

    Args:
        explain: effects listed for each row in a column ``explanation``; None for no such column.
        baseline: what a row is compared with there, ``mean`` or ``unseen``.
        novelty: method of a column ``novelty``, or :data:`LAST`; None for no such column.

    >>> extra_columns(explain=3, novelty="likelihood")
    [MakeNovelty(method='likelihood'), MakeExplanation(top=3, baseline='mean')]
    """
    extras: list[MakeColumns] = []
    if novelty is not None:
        extras.append(MakeNovelty(None if novelty == LAST else novelty))
    if explain is not None:
        extras.append(MakeExplanation(explain, baseline))
    return extras
