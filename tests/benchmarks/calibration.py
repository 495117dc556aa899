"""What each kind of calibrator does to a trained run, and what the correction for sampling does.

Each half of the split is judged by a map fitted on the other, and figures are means of the two.
Prints tables in Markdown; the run is left as it is.

    recsys-had train frappe_dcn_v2 train.epochs=12 train.embedding_l2=0 --data data/frappe \
        --out runs/dcn_v2 --no-tracking
    python tests/benchmarks/calibration.py runs/dcn_v2 --data data/frappe
    python tests/benchmarks/calibration.py runs/dcn_v2 --data data/frappe --segment weather
"""

import argparse
from pathlib import Path

import numpy as np

from recsys_had.calibration import METHODS, judge
from recsys_had.calibration.maps import sigmoid
from recsys_had.data.folder import DataFolder
from recsys_had.scoring import BatchPredictor
from recsys_had.scoring.splits import split_logits


def main() -> None:
    """Prints the tables of one run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--segment")
    parser.add_argument("--min-segment-rows", type=int, default=1000)
    options = parser.parse_args()
    predictor = BatchPredictor.load(options.run, calibrate=False)
    data = DataFolder.open(options.data)
    label, logits, segments = split_logits(predictor, data, options.split, segment=options.segment)
    weight = data.weights(options.split)

    rate, raw = np.average(label, weights=weight), sigmoid(logits.astype(np.float64))
    print(f"{len(label):,} rows, click rate {rate:.5f}\n")
    print("| scores | mean | of the click rate |\n| --- | ---: | ---: |")
    corrected = predictor.to_scores(logits)
    for name, scores in (("as the model has them", raw), ("corrected", corrected)):
        mean = float(np.average(scores, weights=weight))
        print(f"| {name} | {mean:.5f} | {mean / rate:.4f} |")

    print("\n| map | ECE | 95 % interval | logloss | AUC | AUC less before | mean of rate |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for method in METHODS:
        found = judge(
            label,
            logits,
            weight,
            shift=predictor.shift,
            method=method,
            field=options.segment,
            segments=segments,
            min_segment_rows=options.min_segment_rows,
            place=f"{options.data}/{options.split}",
        )
        before, after = found.before, found.after
        if method == METHODS[0]:
            print(_row("none", before, before))
        print(_row(method, after, before))


def _row(name: str, found: dict[str, float | None], before: dict[str, float | None]) -> str:
    value = {key: float("nan") if number is None else number for key, number in found.items()}
    gained = value["auc"] - (before["auc"] or float("nan"))
    return (
        f"| {name} | {value['ece']:.4f} | {value['ece_low']:.4f} to {value['ece_high']:.4f} "
        f"| {value['logloss']:.5f} | {value['auc']:.6f} | {gained:+.1e} "
        f"| {value['calibration']:.4f} |"
    )


if __name__ == "__main__":
    main()
