"""``recsys-had demo``: the whole job on generated rows whose best possible AUC is known."""

import time
from pathlib import Path
from typing import Any

import click
from recsys_had.pipelines._command import Result, local_path, recsys_had_command

from recsys_had.errors import DataError

_MODELS = ("synthetic_fm", "synthetic_dcn_v2")
_SIGN = "demo.txt"  # in the folder from the start: the next demo may replace what is here


@recsys_had_command("demo")
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=local_path,
    help="Folder for raw rows, encoded rows, runs and scores.",
)
@click.option("--rows", default=300_000, show_default=True, type=click.IntRange(min=20_000))
@click.option("--seed", default=2024, show_default=True, type=click.IntRange(min=0))
@click.option("--no-tracking", is_flag=True, help="Keep the runs out of MLflow.")
def command(out: Path, rows: int, seed: int, no_tracking: bool) -> Result:
    """Generate Criteo-format rows, ingest, train FM and DCN-V2, score fresh rows.

    The rows come from a planted pairwise model, so the AUC nobody can beat (the Bayes AUC) is
    known. A demo folder is replaced by the next demo.
    """
    content = demo(out, rows=rows, seed=seed, tracking=not no_tracking)
    return Result(content, _as_text(content, out))


def demo(out: Path, *, rows: int, seed: int, tracking: bool = True) -> dict[str, Any]:
    """Runs the job through the other commands' own functions; returns what ``--json`` prints."""
    from recsys_had.pipelines.ingest import ingest
    from recsys_had.pipelines.predict import predict
    from recsys_had.pipelines.train import train

    from recsys_had.data.synthetic import PlantedModel
    from recsys_had.metrics import auc

    _claim(out)
    begin = time.perf_counter()
    _say(f"generating {rows:,} rows of a planted pairwise model in Criteo's format ...")
    planted = PlantedModel(seed=seed)
    raw = out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    planted.write_tsv(raw / "train.tsv", rows, seed=seed + 1)
    fresh = planted.write_tsv(raw / "fresh.tsv", rows // 6, seed=seed + 2, with_label=False)
    _say("ingesting ...")
    ingested = ingest("synthetic", raw=(str(raw / "train.tsv"),), out=out / "data", overwrite=True)
    models: dict[str, dict[str, Any]] = {}
    for name in _MODELS:
        _say(f"training {name} ...")
        run = out / "runs" / name
        trained = train(name, data=out / "data", out=run, overwrite=True, tracking=tracking)
        scores = out / "scores" / name
        predicted = predict(run, inputs=(str(raw / "fresh.tsv"),), out=scores, overwrite=True)
        score = _read_scores(scores)
        models[name] = {
            "train": trained,
            "predict": predicted,
            "fresh_auc": auc(fresh.label, score),
            "run": str(run),
            "scores": str(scores),
        }
    bayes = planted.bayes_auc(fresh.probability)
    for entry in models.values():
        entry["share_of_bayes"] = (entry["fresh_auc"] - 0.5) / (bayes - 0.5)
    return {
        "bayes_auc": bayes,
        "fresh_bayes_auc": auc(fresh.label, fresh.probability),
        "ingest": ingested,
        "models": models,
        "seconds": time.perf_counter() - begin,
        "mlflow_uri": models[_MODELS[0]]["train"]["mlflow_uri"],
    }


def _claim(out: Path) -> None:
    """Refuses a folder somebody else filled."""
    try:
        if not (out / _SIGN).is_file():
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise DataError(
                    f"{out}: is not empty and was not made by the demo. Choose another folder."
                )
            (out / _SIGN).write_text("Made by `recsys-had demo`; the next demo replaces it.\n")
    except OSError as cause:
        raise DataError(f"{out}: cannot be written: {cause.strerror}.") from cause


def _read_scores(folder: Path) -> Any:
    import polars as pl

    return pl.read_parquet(folder / "part-*.parquet", columns=["score"])["score"].to_numpy()


def _say(text: str) -> None:
    click.echo(text, err=True)


def _as_text(content: dict[str, Any], out: Path) -> str:
    lines = [
        f"Bayes AUC (no model can do better): {content['bayes_auc']:.4f}",
        "",
        f"{'model':<18} {'valid AUC':>9} {'fresh AUC':>9} {'of the way':>10} "
        f"{'train rows/s':>12} {'predict rows/s':>14}",
    ]
    for name, entry in content["models"].items():
        lines.append(
            f"{name:<18} {entry['train']['valid']['auc']:>9.4f} {entry['fresh_auc']:>9.4f} "
            f"{entry['share_of_bayes']:>9.1%} {entry['train']['rows_per_s']:>12,.0f} "
            f"{entry['predict']['rows_per_s']:>14,.0f}"
        )
    lines += [
        "",
        "'of the way' is (fresh AUC - 0.5) / (Bayes AUC - 0.5): 0% guesses, 100% is the limit.",
        f"{out / 'raw'}: generated rows; {out / 'data'}: encoded rows; {out / 'runs'}: trained "
        f"models; {out / 'scores'}: scores with row ids.",
        f"{content['seconds']:.0f} s in all.",
    ]
    if content["mlflow_uri"]:
        lines.append(f"See the runs: mlflow ui --backend-store-uri {content['mlflow_uri']}")
    return "\n".join(lines)
