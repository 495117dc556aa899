"""Metrics: what is counted, in the format that Prometheus reads."""

import pytest

from recsys_had.serving.metrics import Metrics
from tests.serving.prometheus import parse, value


def test_counts_are_told_as_they_were_made() -> None:
    metrics = Metrics(facts={"dataset": "shop", "run_digest": "ab"}, fields=["user", "item"])
    metrics.count_request("/score", 200)
    metrics.count_request("/score", 200)
    metrics.count_request("/score", 422)
    metrics.count_scores(rows=5, unseen={"user": 2, "item": 0}, not_a_number=1)
    metrics.count_scores(rows=2, unseen={"user": 1}, not_a_number=0)
    for seconds in (0.0005, 0.001, 0.0011, 0.7, 99.0):
        metrics.observe(seconds)
    types, samples = parse(metrics.text(open_requests=3))
    assert types == {
        "recsys_had_run": "gauge",
        "recsys_had_requests_total": "counter",
        "recsys_had_rows_total": "counter",
        "recsys_had_unseen_values_total": "counter",
        "recsys_had_not_a_number_total": "counter",
        "recsys_had_open_requests": "gauge",
        "recsys_had_score_seconds": "histogram",
    }
    assert value(samples, "recsys_had_run", dataset="shop", run_digest="ab") == 1
    assert value(samples, "recsys_had_requests_total", path="/score", status="200") == 2
    assert value(samples, "recsys_had_requests_total", path="/score", status="422") == 1
    assert value(samples, "recsys_had_rows_total") == 7
    assert value(samples, "recsys_had_unseen_values_total", field="user") == 3
    assert value(samples, "recsys_had_unseen_values_total", field="item") == 0
    assert ("recsys_had_unseen_values_total", (("field", "item"),)) in samples
    assert value(samples, "recsys_had_not_a_number_total") == 1
    assert value(samples, "recsys_had_open_requests") == 3
    # A limit belongs to its bucket.
    for limit, count in (("0.001", 2), ("0.0025", 3), ("0.5", 3), ("1.0", 4), ("+Inf", 5)):
        assert value(samples, "recsys_had_score_seconds_bucket", le=limit) == count
    assert value(samples, "recsys_had_score_seconds_sum") == pytest.approx(99.7026)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'x\\"\n}', "é {} ,=", ""])
def test_a_field_of_any_name_is_told(name: str) -> None:
    metrics = Metrics(facts={"dataset": name}, fields=[name])
    metrics.count_scores(rows=1, unseen={name: 4}, not_a_number=0)
    _, samples = parse(metrics.text(open_requests=0))
    assert value(samples, "recsys_had_unseen_values_total", field=name) == 4
    assert value(samples, "recsys_had_run", dataset=name) == 1
