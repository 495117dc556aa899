"""The batch predictor beside FuxiCTR's own way from raw rows to scores.

    python -P tests/benchmarks/scoring_peers.py --out FOLDER [--rows 1000000] [--rounds 3]

FM and DCN-V2 of the same sizes over the same rows in Criteo's shape, from the raw file to a file of
scores, each job a process of its own, in turns. FuxiCTR, which pip installs with torch, is in
FOLDER/venv; its own way is scoring_fuxictr.py. Prints a table in Markdown and writes
FOLDER/scoring_peers.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

# Found under -P too, and after everything else.
sys.path.append(str(Path(__file__).parent))

from ingestion_jobs import HERE, fuxictr_python, in_turns, job, medians, wall_ratios
from ingestion_rows import SPLITS, csv_splits

_MODELS = ("fm", "dcn_v2")
_BATCH = "8192"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and results")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    out = words.out.resolve()
    card, splits = csv_splits(out / "rows", words.rows)
    raw = splits / "all.csv"
    if not raw.exists():
        _join([splits / f"{split}.csv" for split in SPLITS], raw)
    program = Path(sys.executable).with_name("recsys-had")
    work = out / "scoring"
    shutil.rmtree(work, ignore_errors=True)
    data = work / "data"
    given = [f"{split}={splits / f'{split}.csv'}" for split in SPLITS]
    _run(program, "ingest", card, "--raw", *given, "--out", data)
    runs = {name: _trained(program, name, card, data, work) for name in _MODELS}
    python, environment = fuxictr_python(out / "venv", f"torch=={version('torch').split('+')[0]}")
    theirs = [python, "-P", HERE / "scoring_fuxictr.py"]
    subprocess.run([*theirs, "fit", raw, work / "fuxictr"], check=True, env=environment)
    jobs = {}
    for name, run in runs.items():
        predict = ["predict", run, "--input", raw, "--out", work / "scores", "--json"]
        jobs[f"ours, {name}"] = job(
            [program, *predict, "--batch-size", _BATCH], work / "scores", every_s=0.2
        )
        jobs[f"fuxictr, {name}"] = job(
            [*theirs, name, raw, work / "fuxictr"], None, every_s=0.2, environment=environment
        )
    rounds = in_turns(jobs, words.rounds)
    for found in rounds.values():
        assert found[0][0]["rows"] == words.rows
    costs = medians(rounds)
    ratios = {
        name: wall_ratios(rounds[f"fuxictr, {name}"], rounds[f"ours, {name}"]) for name in _MODELS
    }
    content = {
        "rows": words.rows,
        "medians": costs,
        "wall_of_fuxictr_over_ours_by_round": ratios,
        "rounds": {name: [asdict(cost) for _, cost in done] for name, done in rounds.items()},
    }
    (out / "scoring_peers.json").write_text(json.dumps(content, indent=1) + "\n")
    print("| job | wall s | CPU s | peak PSS, GB | times as fast |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, cost in costs.items():
        model = name.split(", ")[1]
        times = costs[f"fuxictr, {model}"]["wall_s"] / cost["wall_s"]
        peak = cost["peak_pss_bytes"] / 1e9
        print(f"| {name} | {cost['wall_s']:.1f} | {cost['cpu_s']:.1f} | {peak:.2f} | {times:.1f} |")


def _join(parts: list[Path], path: Path) -> None:
    with path.open("w") as sink:
        for place, part in enumerate(parts):
            with part.open() as lines:
                header = next(lines)
                if place == 0:
                    sink.write(header)
                sink.writelines(lines)


def _trained(program: Path, name: str, card: Path, data: Path, work: Path) -> Path:
    """A run of a model, trained on the rows once."""
    experiment = work / f"{name}.yaml"
    experiment.write_text(
        f"description: {name}.\ndataset: {card}\n"
        f"model: {{definition: {name}, embedding_dim: 16}}\n"
        "train: {epochs: 1, batch_size: 8192}\n"
    )
    out = work / f"run_{name}"
    _run(program, "train", experiment, "--data", data, "--out", out, "--no-tracking")
    return out


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
