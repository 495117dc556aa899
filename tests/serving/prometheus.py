"""Reads the text format of Prometheus, and is strict about it: what the tests of metrics trust.

Written from the description of the format (text format 0.0.4), not from the code under test.
"""

import re

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """Types of the families, and value of each sample by its name and labels."""
    assert text.endswith("\n")
    types: dict[str, str] = {}
    samples: Samples = {}
    family = ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in types, f"{family} stands twice"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            assert kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            name, inside, value = found.groups()
            suffixes = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
            assert name in {family + suffix for suffix in suffixes}, line
            key = (name, tuple(sorted(_labels(inside or ""))))
            assert key not in samples, line
            samples[key] = float(value)
    _check_histograms(types, samples)
    return types, samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where there is none yet."""
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def _labels(inside: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(inside):
        label = _LABEL.match(inside, at)
        assert label, inside
        text = re.sub(r"\\.", lambda escape: _ESCAPES[escape[0]], label[2])
        found.append((label[1], text))
        at = label.end()
    return found


def _check_histograms(types: dict[str, str], samples: Samples) -> None:
    for name in (name for name, kind in types.items() if kind == "histogram"):
        buckets = [
            (float(dict(labels)["le"].replace("+Inf", "inf")), count)
            for (sample, labels), count in samples.items()
            if sample == f"{name}_bucket"
        ]
        assert buckets == sorted(buckets), "buckets grow with their limit"
        counts = [count for _, count in buckets]
        assert counts == sorted(counts)
        assert buckets[-1] == (float("inf"), samples[f"{name}_count", ()])
