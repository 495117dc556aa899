"""RequestError: why a request is not answered with scores, as a status and lines of text."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from recsys_had.data.problems import quoted
from recsys_had.errors import DataError
from recsys_had.suggest import nearest


class RequestError(Exception):
    """A request that is not answered with scores.

    Args:
        status: HTTP status.
        problems: one line, or several; each stands on its own.
        total: number of problems found, where only the first ones are told.
        headers: further headers of the answer.

    >>> error = RequestError(413, "body: is too large.")
    >>> error.content
    {'errors': ['body: is too large.'], 'total': 1}
    """

    def __init__(
        self,
        status: int,
        problems: str | Sequence[str],
        *,
        total: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.total = len(self.problems) if total is None else total
        self.headers = dict(headers or {})
        super().__init__("\n".join(self.problems))

    @classmethod
    def of_data(cls, error: DataError) -> "RequestError":
        """Rows that are not as the card says: status 422, with the lines of the error."""
        return cls(422, error.problems, total=error.total)

    @property
    def content(self) -> dict[str, object]:
        """The answer's body, to be written as JSON."""
        return {"errors": list(self.problems), "total": self.total}


def short(name: str) -> str:
    """A name that a request gave, as an error tells it: of a long one, the beginning.

    >>> short("usr"), len(short("u" * 10**6))
    ('usr', 126)
    """
    return name if len(name) <= 100 else quoted(name)


def match(name: str, given: Iterable[str]) -> str:
    """What :func:`recsys_had.suggest.nearest` says of the names that a request gave.

    Only the first 100 are looked at: the time that it takes grows with their number and lengths.

    >>> match("user", ["usr", "item"])
    " Did you mean 'usr'?"
    """
    return nearest(name, (other for other in itertools.islice(given, 100) if len(other) <= 100))


def too_many_rows(limit: int) -> RequestError:
    """What is said of a body that holds more rows than are scored at once."""
    told = "1 row is" if limit == 1 else f"{limit:,} rows are"
    return RequestError(
        413, f"body: at most {told} scored at once. Send fewer, or serve with --max-rows."
    )
