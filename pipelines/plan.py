"""``recsys-had plan``: where a model's tables would lie on a cluster that need not be there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

from recsys_had.errors import ConfigError

if TYPE_CHECKING:
    from recsys_had.cardinalities import Cardinality
    from recsys_had.schema import DatasetCard
    from recsys_had.storage import AnyPath

_RANKS_PER_HOST = 8


@recsys_had_command("plan")
@click.argument("experiment")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--world-size", required=True, type=click.IntRange(min=1), help="GPUs in all.")
@click.option("--hosts", type=click.IntRange(min=1), help="Default: one for every 8 GPUs.")
@click.option("--machine", default="h100", show_default=True, help="a100, h100 or h200 hosts.")
@click.option("--hbm-gb", type=click.FloatRange(min=0, min_open=True), help="Memory of a GPU.")
@click.option("--data", type=path_or_url, help="Encoded rows, for table sizes.")
@click.option("--cardinalities", type=local_path, help="YAML of table sizes, by field.")
@click.option("--pooling-factor", multiple=True, metavar="FIELD=NUMBER...", help="Values a row.")
@click.option("--draw", type=local_path, help="Also draw it: a file .png.")
def command(
    experiment: str,
    overrides: tuple[str, ...],
    world_size: int,
    hosts: int | None,
    machine: str,
    hbm_gb: float | None,
    data: "AnyPath | None",
    cardinalities: Path | None,
    pooling_factor: tuple[str, ...],
    draw: Path | None,
) -> Result:
    """Plan EXPERIMENT on a cluster: sharding and ranks of each table, memory, time of a step.

    No GPU is needed. Unless the experiment says how tables are sharded, TorchRec's planner chooses.
    Sizes of tables come from --data, from --cardinalities, or from what is published of the
    dataset. Times are estimates at full bandwidth: they compare plans.
    """
    if draw is not None and draw.suffix != ".png":
        raise ConfigError(f"--draw {draw}: must end in .png.")
    content = plan(
        experiment,
        overrides=overrides,
        world_size=world_size,
        hosts=hosts,
        machine_name=machine,
        hbm_gb=hbm_gb,
        data=data,
        cardinalities=cardinalities,
        pooling_factors=pooling_factor,
    )
    if draw is not None and content["fits"]:
        _draw(content, draw)
    return Result(content, _as_text(content))


def plan(
    name: str,
    *,
    overrides: tuple[str, ...] = (),
    world_size: int,
    hosts: int | None = None,
    machine_name: str = "h100",
    hbm_gb: float | None = None,
    data: "AnyPath | None" = None,
    cardinalities: Path | None = None,
    pooling_factors: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.versions import check_trio

    check_trio()

    from recsys_had.config import ShardingConfig
    from recsys_had.experiment_file import load_experiment_with_card
    from recsys_had.machines import machine
    from recsys_had.model.ctr import CTRModel
    from recsys_had.model.embeddings import field_specs, is_table
    from recsys_had.model.torchrec_tables import TORCHREC
    from recsys_had.training.planning import plan_cluster
    from recsys_had.training.sharder import table_type
    from recsys_had.training.sharding import chosen_kinds, kinds_by_name, tables_of

    experiment, card = load_experiment_with_card(name, overrides)
    chosen = machine(machine_name)
    ranks_per_host = _ranks_per_host(world_size, hosts)
    sizes = _sizes(card, data, cardinalities)
    factors = {field: size.pooling_factor for field, size in sizes.items()}
    factors |= _factors(pooling_factors, list(sizes))
    config = experiment.train
    model = CTRModel(
        fields=field_specs(card, {field: size.num_embeddings for field, size in sizes.items()}),
        dense=card.dense,
        config=experiment.model,
        vectors=card.vectors,
        tables_on="meta",
        table_type=table_type(config),
        backend=TORCHREC,
    )
    sharding = config.sharding
    own = "sharding" in config.model_fields_set
    if not own:
        sharding = ShardingConfig(default="auto")
    kinds = chosen_kinds(tables_of(model), sharding)
    dense = sum(
        weight.numel() for weight_name, weight in model.named_parameters()
        if not is_table(weight_name)
    )  # fmt: skip
    found = plan_cluster(
        model,
        fixed=kinds_by_name(kinds),
        config=config,
        machine=chosen,
        world_size=world_size,
        ranks_per_host=ranks_per_host,
        hbm_gb=hbm_gb or chosen.hbm_gb,
        pooling_factors=factors,
        flops_per_row=model.flops_per_row(),
        dense_parameters=dense,
    )
    return {
        "experiment": Path(name).stem,
        "world_size": world_size,
        "hosts": world_size // ranks_per_host,
        "machine": {"name": chosen.name, "what": chosen.description, "source": chosen.source},
        "batch_size": config.batch_size,
        "sharding": sharding.model_dump(mode="json"),
        "fits": found.fits,
        "why_not": found.why_not,
        "tables": [
            {
                "name": table.name,
                "num_embeddings": table.num_embeddings,
                "embedding_dim": table.embedding_dim,
                "sharding": table.sharding,
                "ranks": list(table.ranks),
                "size_bytes": table.size_bytes,
            }
            for table in found.tables
        ],
        "dense_parameters": dense,
        "rank_bytes": list(found.rank_bytes),
        "reserved_bytes": found.reserved_bytes,
        "hbm_bytes": found.hbm_bytes,
        "slowest_rank": found.slowest_rank,
        "step_ms": {part: round(time, 4) for part, time in found.step_ms.items()},
    }


def _ranks_per_host(world_size: int, hosts: int | None) -> int:
    """GPUs of a host.

    Raises:
        ConfigError: they cannot be dealt evenly.
    """
    hosts = hosts or -(-world_size // _RANKS_PER_HOST)
    if world_size % hosts or world_size // hosts > _RANKS_PER_HOST:
        raise ConfigError(
            f"--world-size {world_size}: cannot be dealt evenly to {hosts} hosts of up to "
            f"{_RANKS_PER_HOST} GPUs. Give another --hosts."
        )
    return world_size // hosts


def _sizes(
    card: "DatasetCard", data: "AnyPath | None", cardinalities: Path | None
) -> dict[str, "Cardinality"]:
    """Size of each field's table.

    Raises:
        ConfigError: there is nothing that tells, or two things do.
    """
    from recsys_had.cardinalities import Cardinality, bundled_cardinalities, load_cardinalities
    from recsys_had.data.folder import DataFolder

    fields = [field.name for field in card.fields]
    if data is not None and cardinalities is not None:
        raise ConfigError("--cardinalities: --data tells the sizes already. Give one of them.")
    if data is not None:
        folder = DataFolder.open(data)
        folder.require(card)
        return {field: Cardinality(folder.num_embeddings[field]) for field in fields}
    path = cardinalities or bundled_cardinalities(card.name)
    if path is None:
        raise ConfigError(
            f"{card.name}: no published sizes of its tables are bundled. Give --data, or "
            "--cardinalities and a YAML file of them."
        )
    return load_cardinalities(path, fields)


def _factors(given: tuple[str, ...], fields: list[str]) -> dict[str, float]:
    """What ``--pooling-factor`` says.

    Raises:
        ConfigError: a field that is not there, or no number above 0.
    """
    from recsys_had.suggest import nearest

    found, problems = {}, []
    for word in given:
        name, _, number = word.partition("=")
        if name not in fields:
            problems.append(f"--pooling-factor {word}: no such field.{nearest(name, fields)}")
            continue
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if not found[name] > 0:
            problems.append(f"--pooling-factor {word}: must be FIELD=NUMBER, a number above 0.")
    if problems:
        raise ConfigError(problems)
    return found


def _draw(content: dict[str, Any], path: Path) -> None:
    from recsys_had.plan_plot import draw_plan

    where = f"{content['world_size']} {content['machine']['name']}"
    try:
        draw_plan(
            path,
            title=f"{content['experiment']} on {where}",
            rank_bytes=content["rank_bytes"],
            reserved_bytes=content["reserved_bytes"],
            hbm_bytes=content["hbm_bytes"],
            step_ms=content["step_ms"],
        )
    except OSError as cause:
        raise ConfigError(f"--draw {path}: cannot be written: {cause.strerror}.") from cause


def _as_text(content: dict[str, Any]) -> str:
    gpus, hosts = content["world_size"], content["hosts"]
    where = (
        f"{gpus} GPU{'s' * (gpus > 1)} on {hosts} host{'s' * (hosts > 1)} "
        f"({content['machine']['what']}), {content['batch_size']:,} rows a GPU"
    )
    if not content["fits"]:
        return f"{where}\ndoes not fit: {content['why_not']}"
    rows = [("table", "rows", "width", "sharding", "ranks", "GB")]
    for table in content["tables"]:
        rows.append(
            (
                table["name"],
                f"{table['num_embeddings']:,}",
                str(table["embedding_dim"]),
                table["sharding"],
                _span(table["ranks"]),
                f"{table['size_bytes'] / 1e9:.3f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    most, least = max(content["rank_bytes"]), min(content["rank_bytes"])
    parts = ", ".join(f"{part} {time:.2f}" for part, time in content["step_ms"].items())
    lines += [
        where,
        f"fits: {least / 1e9:.1f} to {most / 1e9:.1f} GB of tables a GPU, "
        f"{content['reserved_bytes'] / 1e9:.1f} kept for the rest, of "
        f"{content['hbm_bytes'] / 1e9:.1f} GB",
        f"estimated ms of a step on rank {content['slowest_rank']}, the slowest: {parts}",
    ]
    return "\n".join(lines)


def _span(ranks: list[int]) -> str:
    """Ranks as a range where they are one.

    >>> _span([3]), _span([8, 9, 10]), _span([1, 4])
    ('3', '8-10', '1, 4')
    """
    if len(ranks) > 1 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]}-{ranks[-1]}"
    return ", ".join(map(str, ranks))
