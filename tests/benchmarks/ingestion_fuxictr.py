"""FuxiCTR's own preprocessing of Criteo's rows with its Criteo_x4 settings; needs FuxiCTR alone.

    python -P tests/benchmarks/ingestion_fuxictr.py ROWS OUT

ROWS is a folder of train.csv, valid.csv and test.csv. Prints one JSON object: the vocabulary's size
of each field, FuxiCTR's two ids for padding and for unseen values left out.
"""

import json
import sys
from pathlib import Path

from fuxictr.datasets.criteo import CustomizedFeatureProcessor
from fuxictr.preprocess import build_dataset

NUMBERS = {
    "name": [f"I{place}" for place in range(1, 14)],
    "active": True,
    "dtype": "float",
    "type": "categorical",
    "fill_na": 0,
    "preprocess": "convert_to_bucket",
}
TEXTS = {
    "name": [f"C{place}" for place in range(1, 27)],
    "active": True,
    "dtype": "str",
    "type": "categorical",
    "fill_na": "",
}


def main() -> None:
    rows, out = map(Path, sys.argv[1:3])
    encoder = CustomizedFeatureProcessor(
        feature_cols=[NUMBERS, TEXTS],
        label_col={"name": "label", "dtype": "float"},
        dataset_id="rows",
        data_root=str(out),
    )
    build_dataset(
        encoder,
        train_data=str(rows / "train.csv"),
        valid_data=str(rows / "valid.csv"),
        test_data=str(rows / "test.csv"),
        min_categr_count=10,
    )
    features = encoder.feature_map.features
    print(json.dumps({name: found["vocab_size"] - 2 for name, found in features.items()}))


if __name__ == "__main__":
    main()
