"""Metrics: counts of a server, in the text format of Prometheus.

Format: Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper ends, in seconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What a server has done since it began.

    Args:
        facts: labels of the one sample that tells which run is served.
        fields: the model's fields, whose unseen values are counted.

    >>> metrics = Metrics(facts={"run_digest": "ab"}, fields=["user"])
    >>> metrics.count_request("/score", 200)
    >>> metrics.count_scores(rows=3, unseen={"user": 2}, not_a_number=0)
    >>> metrics.observe(0.003)
    >>> print(metrics.text(open_requests=0).splitlines()[5])
    recsys_had_requests_total{path="/score",status="200"} 1
    """

    def __init__(self, *, facts: Mapping[str, str], fields: Iterable[str]) -> None:
        self._facts = dict(facts)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._unseen: Counter[str] = Counter(dict.fromkeys(fields, 0))
        self._rows = 0
        self._not_a_number = 0
        self._buckets = [0] * len(_BUCKETS)
        self._count = 0
        self._seconds = 0.0

    def count_request(self, path: str, status: int) -> None:
        """Counts an answer."""
        self._requests[path, status] += 1

    def count_scores(self, *, rows: int, unseen: Mapping[str, int], not_a_number: int) -> None:
        """Counts the rows of a request, and what was met in them."""
        self._rows += rows
        self._unseen.update(unseen)
        self._not_a_number += not_a_number

    def observe(self, seconds: float) -> None:
        """Counts the time from a request's head to its scores."""
        for number, limit in enumerate(_BUCKETS):
            self._buckets[number] += seconds <= limit
        self._count += 1
        self._seconds += seconds

    def text(self, *, open_requests: int) -> str:
        """All of it.

        Args:
            open_requests: requests that are read, wait or are scored at the moment.
        """
        name = "recsys_had"
        lines = [
            *_family(f"{name}_run", "gauge", "The run that is served.", [(self._facts, 1)]),
            *_family(
                f"{name}_requests_total",
                "counter",
                "Answers, by path and status.",
                [
                    ({"path": path, "status": str(status)}, count)
                    for (path, status), count in sorted(self._requests.items())
                ],
            ),
            *_family(f"{name}_rows_total", "counter", "Rows scored.", [({}, self._rows)]),
            *_family(
                f"{name}_unseen_values_total",
                "counter",
                "Values that training never saw, by field.",
                [({"field": field}, count) for field, count in self._unseen.items()],
            ),
            *_family(
                f"{name}_not_a_number_total",
                "counter",
                "Scores that are not a number.",
                [({}, self._not_a_number)],
            ),
            *_family(
                f"{name}_open_requests",
                "gauge",
                "Requests that are read, wait or are scored.",
                [({}, open_requests)],
            ),
            *self._histogram(f"{name}_score_seconds"),
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> Iterable[str]:
        yield f"# HELP {name} Time from a request's head to its scores."
        yield f"# TYPE {name} histogram"
        for limit, count in zip(_BUCKETS, self._buckets, strict=True):
            yield f"{name}_bucket{_labels({'le': str(limit)})} {count}"
        yield f"{name}_bucket{_labels({'le': '+Inf'})} {self._count}"
        yield f"{name}_sum {self._seconds!r}"
        yield f"{name}_count {self._count}"


def _family(
    name: str, kind: str, told: str, samples: Iterable[tuple[Mapping[str, str], int]]
) -> Iterable[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
