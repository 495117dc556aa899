"""FuxiCTR's own way from raw rows to scores; needs FuxiCTR and torch alone.

    python -P tests/benchmarks/scoring_fuxictr.py fit ROWS WORK
    python -P tests/benchmarks/scoring_fuxictr.py fm|dcn_v2 ROWS WORK

``fit`` fits FuxiCTR's encoder on ROWS, a file .csv in Criteo's columns, and keeps it in WORK. The
others read ROWS, encode them with it into Parquet, load that and predict with a model made of
FuxiCTR's layers, and write the scores: what its `run_expid.py` does to a test split. Weights are as
initialised: they cost as much as trained ones. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

# Found under -P too, and after everything else.
sys.path.append(str(Path(__file__).parent))

import numpy as np
import pandas as pd
from fuxictr.datasets.criteo import CustomizedFeatureProcessor
from fuxictr.features import FeatureMap
from fuxictr.preprocess.build_dataset import transform
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from ingestion_fuxictr import NUMBERS, TEXTS
from torch import cat, nn

_BATCH = 8192


class FM(BaseModel):
    """Rendle (2010)."""

    def __init__(self, feature_map: FeatureMap, **settings: object) -> None:
        super().__init__(feature_map, **settings)
        self.embedding = FeatureEmbedding(feature_map, 16)
        self.fm = FactorizationMachine(feature_map)

    def forward(self, inputs: dict) -> dict:
        """Scores a batch."""
        x = self.get_inputs(inputs)
        return {"y_pred": self.output_activation(self.fm(x, self.embedding(x)))}


class DCNv2(BaseModel):
    """Wang et al. (2021), parallel; the sizes of configs/criteo_dcn_v2.yaml."""

    def __init__(self, feature_map: FeatureMap, **settings: object) -> None:
        super().__init__(feature_map, **settings)
        width = 16 * feature_map.num_fields
        self.embedding = FeatureEmbedding(feature_map, 16)
        self.cross = CrossNetV2(width, 3)
        self.deep = MLP_Block(width, hidden_units=[400, 400, 400], hidden_activations="ReLU")
        self.last = nn.Linear(width + 400, 1)

    def forward(self, inputs: dict) -> dict:
        """Scores a batch."""
        x = self.embedding(self.get_inputs(inputs), flatten_emb=True)
        logit = self.last(cat([self.cross(x), self.deep(x)], dim=-1))
        return {"y_pred": self.output_activation(logit)}


def encoder_in(work: Path) -> CustomizedFeatureProcessor:
    """The encoder, not fitted."""
    return CustomizedFeatureProcessor(
        feature_cols=[NUMBERS, TEXTS],
        label_col={"name": "label", "dtype": "float"},
        dataset_id="rows",
        data_root=str(work),
    )


def main() -> None:
    kind, rows, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    encoder = encoder_in(work)
    if kind == "fit":
        read = encoder.preprocess(encoder.read_data(rows))
        encoder.fit(read, min_categr_count=10)
        print(json.dumps({"fields": encoder.feature_map.num_fields}))
        return
    encoder = encoder.load_pickle(encoder.pickle_file)
    transform(encoder, encoder.preprocess(encoder.read_data(rows)), "test")
    feature_map = FeatureMap("rows", encoder.data_dir)
    feature_map.load(encoder.json_file, {"feature_specs": []})
    batches = RankDataLoader(
        feature_map,
        stage="test",
        test_data=str(Path(encoder.data_dir) / "test.parquet"),
        batch_size=_BATCH,
        data_format="parquet",
    )
    model = {"fm": FM, "dcn_v2": DCNv2}[kind](
        feature_map, verbose=0, model_root=str(work), metrics=["AUC"]
    )
    scores = model.predict(batches)
    pd.DataFrame({"score": scores}).to_parquet(work / "scores.parquet")
    print(json.dumps({"rows": len(scores), "finite": bool(np.isfinite(scores).all())}))


if __name__ == "__main__":
    main()
