"""``recsys-had benchmark``: several experiments on one data folder, several seeds each."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

from recsys_had.errors import ConfigError, DataError, DivergenceError

if TYPE_CHECKING:
    from recsys_had.comparison import Measured
    from recsys_had.storage import AnyPath

# Of the trials; no seed anyone is likely to compare by.
_TUNING_SEED = 20_077


@recsys_had_command("benchmark")
@click.argument("suite")
@click.option("--data", required=True, type=path_or_url, help="Encoded rows.")
@click.option("--out", required=True, type=local_path, help="Report folder.")
@click.option("--experiments", multiple=True, help="Some of the suite alone.")
@click.option("--seeds", multiple=True, type=click.IntRange(min=0), help="Default: 1 2.")
@click.option("--override", multiple=True, metavar="KEY=VALUE...", help="Of every experiment.")
@click.option(
    "--tune", type=click.IntRange(min=1), metavar="N", help="Tune each model first, in N trials."
)
@click.option("--finished", is_flag=True, help="Report what is finished; train nothing.")
def command(
    suite: str,
    data: "AnyPath",
    out: Path,
    experiments: tuple[str, ...],
    seeds: tuple[int, ...],
    override: tuple[str, ...],
    tune: int | None,
    finished: bool,
) -> Result:
    """Train all bundled experiments on dataset SUITE, once a seed, and compare them.

    A stopped benchmark goes on when it is run again: what is finished is not trained again. The
    figures are those of the validation split, on which the best epoch was chosen.

    With --tune every model gets the same number of trials, drawn from the same space about its own
    settings, with a seed of their own; the best by validation AUC is then trained with each seed.
    """
    content = benchmark(
        suite,
        data=data,
        out=out,
        experiments=experiments,
        seeds=seeds or (1, 2),
        overrides=override,
        tune=tune,
        finished=finished,
    )
    return Result(content, (out / "report.md").read_text())


def benchmark(
    suite: str,
    *,
    data: "AnyPath",
    out: Path,
    experiments: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (1, 2),
    overrides: tuple[str, ...] = (),
    tune: int | None = None,
    finished: bool = False,
) -> dict[str, Any]:
    """Trains what is not there yet and writes the report; returns what ``--json`` prints."""
    from recsys_had.comparison import draw_comparison, markdown_table, summarise, to_dict

    names = _experiments_of(suite, experiments)
    bench = _Bench(data, out, _claim(out), trains=not finished)
    chosen = dict.fromkeys(names, overrides)
    tried = dict.fromkeys(names, 0)
    if tune is not None:
        for name in names:
            best, tried[name] = bench.best_trial(name, tune, overrides)
            chosen[name] = (*overrides, *best)
    found = [bench.attempt(name, seed, chosen[name]) for seed in seeds for name in names]
    results = [one for one in found if one is not None]
    if not results:
        raise DataError(
            f"{out}: holds no finished result of these. Run it without --finished."
            if finished
            else f"{out}: has no result to report: every training diverged."
        )
    rows = summarise(results)
    text = f"# {suite}\n\n{markdown_table(rows)}\n"
    if tune is not None:
        text += f"\nSettings chosen among {tune} trials each:\n\n"
        for name in names:
            told = "" if tried[name] == tune else f" ({tried[name]} came to an end)"
            text += f"- {name}{told}: {' '.join(chosen[name]) or 'as bundled'}\n"
    (out / "report.md").write_text(text)
    draw_comparison(rows, out / "auc.png", title=suite)
    content = {
        "suite": suite,
        "seeds": list(seeds),
        "models": [
            {
                **to_dict(row),
                "overrides": list(chosen[row.experiment]),
                "trials": tried[row.experiment],
            }
            for row in rows
        ],
    }
    (out / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    return content


def _experiments_of(suite: str, wanted: tuple[str, ...]) -> list[str]:
    from recsys_had.experiment_file import bundled_experiments, load_experiment
    from recsys_had.suggest import nearest

    bundled = bundled_experiments()
    datasets = {name: load_experiment(name).dataset for name in bundled}
    found = [name for name, dataset in datasets.items() if dataset == suite]
    if not found:
        raise ConfigError(
            f"{suite}: no bundled experiment is on a dataset of this name."
            f"{nearest(suite, set(datasets.values()))}"
        )
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise ConfigError(
            [
                f"--experiments {name}: is not one of {suite}.{nearest(name, found)}"
                for name in unknown
            ]
        )
    return list(wanted) or found


def _claim(out: Path) -> Path:
    """The folder of finished runs; refuses a folder of somebody else."""
    runs = out / "runs"
    try:
        if out.exists() and not runs.is_dir() and any(out.iterdir()):
            raise DataError(
                f"{out}: is not empty and was not made by a benchmark. Choose another folder."
            )
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise DataError(f"{out}: cannot be written: {cause.strerror}.") from cause
    return runs


@dataclass(frozen=True)
class _Bench:
    """Where trainings read and leave their results.

    Args:
        data: encoded rows.
        out: the report's folder.
        runs: its folder of finished results.
        trains: whether what is not finished is trained.
    """

    data: "AnyPath"
    out: Path
    runs: Path
    trains: bool

    def best_trial(
        self, name: str, count: int, overrides: tuple[str, ...]
    ) -> tuple[tuple[str, ...], int]:
        """The overrides of the trial with the best validation AUC, and how many came to an end.

        A trial whose loss is no longer finite has lost; the others go on.
        """
        from recsys_had.experiment_file import load_experiment
        from recsys_had.tuning import trials

        given = trials(load_experiment(name, overrides), count)
        found = [
            (self.attempt(name, _TUNING_SEED, (*overrides, *trial), tag=f"trial{number}"), trial)
            for number, trial in enumerate(given)
        ]
        finished = [(one.auc, trial) for one, trial in found if one is not None]
        best = max(finished, key=lambda pair: pair[0])[1] if finished else ()
        return best, len(finished)

    def attempt(
        self, name: str, seed: int, overrides: tuple[str, ...], *, tag: str | None = None
    ) -> "Measured | None":
        """As :meth:`measure`, and None where the training diverges, which is told."""
        try:
            return self.measure(name, seed, overrides, tag=tag)
        except DivergenceError as cause:
            click.echo(f"{name}, {tag or f'seed {seed}'}: {cause}", err=True)
            return None

    def measure(
        self, name: str, seed: int, overrides: tuple[str, ...], *, tag: str | None = None
    ) -> "Measured | None":
        """The result of one training, from an earlier try if it was of the same settings and data.

        None where there is none and nothing is to be trained.
        """
        from recsys_had.comparison import Measured
        from recsys_had.data.folder import DataFolder
        from recsys_had.experiment_file import load_experiment

        overrides = (*overrides, f"train.seed={seed}")
        folder = DataFolder.open(self.data)
        same = {key: folder.manifest[key] for key in ("card_digest", "vocabulary_digest", "rows")}
        # Keys a later version adds leave the digest as it was.
        experiment = load_experiment(name, overrides)
        settings = experiment.model_dump(mode="json", exclude_defaults=True)
        settings["model"].pop("definition", None)
        loss, revision = experiment.train.loss, experiment.train.revision
        if revision > 1:
            same["training"] = revision
        if loss.kind != "bce":
            # Each kind's name is a default of its own.
            settings["train"]["loss"]["kind"] = loss.kind
        text = json.dumps([settings, same], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        note = self.runs / f"{name}-{tag or seed}.json"
        if note.is_file():
            found = Measured.load(note)
            if found.settings_digest == digest:
                return found
        if not folder.rows("valid"):
            raise DataError(
                f"{self.data}: has no row in split 'valid', by which models are compared."
            )
        if not self.trains:
            return None
        click.echo(f"{name}, {tag or f'seed {seed}'} ...", err=True)
        return self._train(name, seed, overrides, digest, note)

    def _train(
        self, name: str, seed: int, overrides: tuple[str, ...], digest: str, note: Path
    ) -> "Measured":
        from recsys_had.pipelines.describe import describe
        from recsys_had.pipelines.train import train

        from recsys_had.comparison import Measured
        from recsys_had.data.folder import DataFolder

        # Work of other settings is not gone on with; a run that ended just before its result was
        # written is done again.
        run = self.out / ".work" / f"{name}-{seed}-{digest[:12]}"
        if (run / "manifest.json").exists():
            shutil.rmtree(run)
        trained = train(
            name, overrides=overrides, data=self.data, out=run, resume=True, tracking=False
        )
        best = trained["history"][trained["best_epoch"] - 1]["valid"]
        if best["auc"] is None:
            raise DataError(
                f"{self.data}: all labels of split 'valid' that count are the same, so there is "
                "no AUC."
            )
        rows = DataFolder.open(self.data).rows("train")
        result = Measured(
            experiment=name,
            seed=seed,
            settings_digest=digest,
            parameters=describe(name, overrides=overrides, data=self.data)["parameters"],
            auc=best["auc"],
            logloss=best["logloss"],
            best_epoch=trained["best_epoch"],
            epochs=trained["epochs"],
            epoch_s=round(rows / trained["rows_per_s"], 3),
        )
        result.save(note)
        shutil.rmtree(run)
        return result
