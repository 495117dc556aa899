"""Memory and speed of ingestion: as rows grow, beside its floor, pandas and FuxiCTR.

    python -P tests/benchmarks/ingestion.py memory --out FOLDER
    python -P tests/benchmarks/ingestion.py speed --out FOLDER
    python -P tests/benchmarks/ingestion.py fuxictr --out FOLDER
    python -P tests/benchmarks/ingestion.py memory --out FOLDER --rows 20000 40000 --distinct 20000

Prints a table in Markdown and writes FOLDER/memory.json, speed.json or fuxictr.json. Made rows are
kept in FOLDER/rows for the next time, and FuxiCTR, which pip installs, in FOLDER/venv. Every job is
a process of its own, begun in turns where several are compared; the medians of the rounds are told.

memory: peak of the summed proportional set size (PSS) of the command and its workers, at several
numbers of rows with the same vocabulary, and of a field with another value in each row.
speed: CPU seconds against those of what cannot be avoided (ingestion_floor.py), and wall seconds
against the same job in chunked pandas (ingestion_pandas.py), whose texts are `str` or, faster,
Python's objects; it must come to as many rows and ids. The floor is CPU time of parsing the text
and of writing the encoded rows; the table tells the ratio to a second one too, that writes the
parsed rows.
fuxictr: wall and CPU seconds and peak memory against FuxiCTR's preprocessing of the same files
(ingestion_fuxictr.py), which must come to vocabularies of the same sizes.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Found under -P too, and after everything else.
sys.path.append(str(Path(__file__).parent))

from ingestion_jobs import (
    FUXICTR,
    HERE,
    floor,
    fuxictr,
    in_turns,
    medians,
    ours,
    pandas,
    wall_ratios,
)
from ingestion_rows import SPLITS, criteo, csv_splits, distinct

from recsys_had.engines.local import available_cores
from recsys_had.versions import library_versions

GB = 1e9
# How pandas holds them: as its users write it, and as it is fastest.
TEXTS = ("str", "object")
CRITEO_ROWS = (2_000_000, 6_000_000, 18_000_000)
DISTINCT_ROWS = 30_000_000


def memory(words: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Peaks at several numbers of rows, their growth, and that of a field of distinct values."""
    rows, out = words.out / "rows", words.out / "work"
    cases: list[dict[str, Any]] = []

    def measure(dataset: str, num_rows: int, *, card: str, raw: str) -> None:
        ((told, cost),) = in_turns(
            {dataset: ours([raw], out, card=card, workers=words.workers, every_s=words.every_s)}, 1
        )[dataset]
        assert told["rows_read"] == num_rows == sum(told["rows"].values())
        ids = sum(told["num_embeddings"].values())
        cases.append({"dataset": dataset, "rows": num_rows, "ids": ids, **asdict(cost)})

    for num_rows in words.rows or CRITEO_ROWS:
        measure("criteo", num_rows, card="criteo", raw=str(criteo(rows, num_rows)))
    growth = cases[-1]["peak_pss_bytes"] / cases[0]["peak_pss_bytes"] - 1
    if words.distinct:
        card, path = distinct(rows, words.distinct)
        measure("distinct", words.distinct, card=str(card), raw=f"train={path}")
        assert cases[-1]["ids"] == words.distinct + 1
    shutil.rmtree(out)
    body = [
        (
            f"{case['dataset']}, {case['rows']:,}",
            f"{case['ids']:,}",
            *_memory_and_time(case),
        )
        for case in cases
    ]
    table = _table(("rows", "ids", *_MEMORY_AND_TIME), body)
    told = f"growth from the first to the last number of rows: {growth:+.1%}"
    asked = "asked: below +10 %, below 1.5 GB, and a field of 30 M distinct values below 2.5 GB"
    return {"cases": cases, "growth": round(growth, 4)}, f"{table}\n\n{told}\n{asked}"


def speed(words: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Ours in one process and in several, the floor, and pandas."""
    rows = criteo(words.out / "rows", (words.rows or [4_000_000])[0])
    data, other = words.out / "work", words.out / "work-pandas"
    one, several = "ours, 1 worker", f"ours, {words.workers} workers"
    rounds = in_turns(
        {
            one: ours([str(rows)], data, card="criteo", workers=1),
            several: ours([str(rows)], data, card="criteo", workers=words.workers),
            "floor": floor(rows, data),
            **{f"pandas, {texts}": pandas(rows, other, texts=texts) for texts in TEXTS},
        },
        words.rounds,
    )
    told = rounds[several][0][0]
    pandas_jobs = [f"pandas, {texts}" for texts in TEXTS]
    for name in pandas_jobs:
        for theirs, _ in rounds[name]:
            for what in ("rows", "num_embeddings"):
                assert theirs[what] == told[what], f"{name} came to other {what}"
    shutil.rmtree(data)
    shutil.rmtree(other)
    parts = {
        part: statistics.median(found[part] for found, _ in rounds["floor"])
        for part in ("parse", "write_encoded", "write_parsed")
    }
    # The second writes more: the parsed rows, texts and all.
    floors = [parts["parse"] + parts[part] for part in ("write_encoded", "write_parsed")]
    costs = medians(rounds)
    del costs["floor"]
    found = {
        "rows": told["rows_read"],
        "seconds": {
            name: {k: cost[k] for k in ("wall_s", "cpu_s")} for name, cost in costs.items()
        },
        "floor_cpu_s": {**parts, "parse_and_write_encoded": floors[0]},
        "cpu_over_floor": {name: costs[name]["cpu_s"] / floors[0] for name in costs},
        "cpu_over_floor_with_parsed_rows_written": {
            name: costs[name]["cpu_s"] / floors[1] for name in costs
        },
        "times_faster": {
            name: costs[name]["wall_s"] / costs[several]["wall_s"] for name in pandas_jobs
        },
        "times_faster_in_each_round": {
            name: wall_ratios(rounds[name], rounds[several]) for name in pandas_jobs
        },
        "rounds": {name: [asdict(cost) for _, cost in done] for name, done in rounds.items()},
    }
    body: list[tuple[str, ...]] = [
        (
            "floor",
            "",
            f"{floors[0]:.1f}",
            "1.00",
            f"{floors[0] / floors[1]:.2f}",
            *["" for _ in TEXTS],
        )
    ]
    for name, cost in costs.items():
        ratios = [cost["cpu_s"] / floor for floor in floors]
        ratios += [costs[one]["wall_s"] / cost["wall_s"] for one in pandas_jobs]
        numbers = (f"{ratio:.2f}" for ratio in ratios)
        body.append((name, f"{cost['wall_s']:.1f}", f"{cost['cpu_s']:.1f}", *numbers))
    heads = (
        *("job", "wall s", "CPU s", "CPU / floor", "CPU / (parse + write parsed)"),
        *(f"wall of {name} / wall" for name in pandas_jobs),
    )
    each = ", ".join(f"{part.replace('_', ' ')} {cpu:.2f}" for part, cpu in parts.items())
    asked = "asked: CPU at most 2.2 times the floor; 2 workers at least 3 times as fast as pandas"
    table = _table(heads, body)
    return found, f"{table}\n\nCPU seconds of the floor (parse + write encoded): {each}\n{asked}"


def beside_fuxictr(words: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Ours and FuxiCTR on the same files."""
    card, rows = csv_splits(words.out / "rows", (words.rows or [1_000_000])[0])
    raw = [f"{split}={rows / f'{split}.csv'}" for split in SPLITS]
    data, other = words.out / "work", words.out / "work-fuxictr"
    every_s = words.every_s
    rounds = in_turns(
        {
            "ours": ours(raw, data, card=str(card), workers=words.workers, every_s=every_s),
            "fuxictr": fuxictr(rows, other, venv=words.out / "venv", every_s=every_s),
        },
        words.rounds,
    )
    ids = rounds["ours"][0][0]["num_embeddings"]
    for field, size in rounds["fuxictr"][0][0].items():
        # FuxiCTR has no id for 0 in a column whose missing values are 0.
        expected = ids[field] - 1 - field.startswith("I")
        assert size == expected, f"{field}: FuxiCTR came to {size} values, ours to {expected}"
    shutil.rmtree(data)
    shutil.rmtree(other)
    costs = medians(rounds)
    ratios = {
        what: costs["fuxictr"][what] / costs["ours"][what]
        for what in ("peak_pss_bytes", "peak_anonymous_bytes", "wall_s", "cpu_s")
    }
    found = {
        "rows": rounds["ours"][0][0]["rows_read"],
        "installed": [line for line in FUXICTR.read_text().splitlines() if "==" in line],
        "medians": costs,
        "fuxictr_over_ours": ratios,
        "times_faster_in_each_round": wall_ratios(rounds["fuxictr"], rounds["ours"]),
        "rounds": {name: [asdict(cost) for _, cost in done] for name, done in rounds.items()},
    }
    body = [(name, *_memory_and_time(cost)) for name, cost in costs.items()]
    body.append(("fuxictr / ours", *(f"{ratio:.2f}" for ratio in ratios.values())))
    asked = "asked: FuxiCTR takes at least 4 times the wall time and 3 times the memory"
    return found, f"{_table(('job', *_MEMORY_AND_TIME), body)}\n\n{asked}"


_MEMORY_AND_TIME = ("peak PSS, GB", "peak anonymous, GB", "wall s", "CPU s")


def _memory_and_time(cost: dict[str, Any]) -> tuple[str, ...]:
    held = (cost["peak_pss_bytes"], cost["peak_anonymous_bytes"])
    taken = (cost["wall_s"], cost["cpu_s"])
    return (*(f"{size / GB:.3f}" for size in held), *(f"{seconds:.1f}" for seconds in taken))


def _table(heads: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    rule = ("---", *["---:"] * (len(heads) - 1))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *body))


def machine() -> dict[str, Any]:
    """What the figures are of."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in about if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "commit": "".join(_git("rev-parse", "HEAD")) or None,
        "changed_files": len(_git("status", "--short")),
    }


def _git(*words: str) -> list[str]:
    if shutil.which("git") is None:
        return []
    command = ["git", "-C", str(HERE), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


PARTS = {"memory": memory, "speed": speed, "fuxictr": beside_fuxictr}


def main() -> None:
    """Writes the file and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and results")
    told = "if left out 2, 6 and 18 million for memory, 4 for speed, 1 for fuxictr"
    parser.add_argument("--rows", type=int, nargs="+", help=told)
    told = "memory: rows of the field of distinct values; 0 leaves it out"
    parser.add_argument("--distinct", type=int, default=DISTINCT_ROWS, help=told)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of speed and fuxictr")
    parser.add_argument("--every-s", type=float, default=0.2, help="between looks at the memory")
    words = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("memory is read from Linux's /proc. Run it on Linux.")
    words.out = words.out.resolve()
    words.out.mkdir(parents=True, exist_ok=True)
    about = machine()
    found, table = PARTS[words.part](words)
    settings = {"workers": words.workers, "rounds": words.rounds, "every_s": words.every_s}
    report = {"machine": about, "settings": settings, words.part: found}
    (words.out / f"{words.part}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table)


if __name__ == "__main__":
    main()
