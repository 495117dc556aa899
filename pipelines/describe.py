"""``recsys-had describe``: a model's nodes, parameters and cost, before it is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recsys_had.pipelines._command import Result, local_path, path_or_url, recsys_had_command

if TYPE_CHECKING:
    from recsys_had.config import ModelConfig
    from recsys_had.schema import DatasetCard
    from recsys_had.storage import AnyPath


@recsys_had_command("describe")
@click.argument("experiment")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", type=path_or_url, help="Encoded rows, for the sizes of the tables.")
@click.option("--draw", type=local_path, help="Also draw the graph: a file .png or .svg.")
def command(
    experiment: str, overrides: tuple[str, ...], data: "AnyPath | None", draw: Path | None
) -> Result:
    """Describe EXPERIMENT: nodes with shapes, parameters, operations a row and degree.

    Without --data the tables' sizes are unknown and their parameters are left out.
    """
    content = describe(experiment, overrides=overrides, data=data)
    if draw is not None:
        _draw(content, draw)
    return Result(content, _as_text(content))


def describe(
    name: str, *, overrides: tuple[str, ...] = (), data: "AnyPath | None" = None
) -> dict[str, Any]:
    """What ``--json`` prints."""
    from recsys_had.versions import check_trio

    check_trio()

    from recsys_had.data.folder import DataFolder
    from recsys_had.experiment_file import load_experiment_with_card
    from recsys_had.model.ctr import CTRModel
    from recsys_had.model.embeddings import field_specs, is_table
    from recsys_had.training.losses import require_students

    experiment, card = load_experiment_with_card(name, overrides)
    if data is None:
        num_embeddings = {field.name: 1 for field in card.fields}
    else:
        folder = DataFolder.open(data)
        folder.require(card)
        num_embeddings = folder.num_embeddings
    model = CTRModel(
        fields=field_specs(card, num_embeddings),
        dense=card.dense,
        config=experiment.model,
        vectors=card.vectors,
    )
    graph = model.graph
    require_students(
        experiment.train.loss, num_heads=graph.num_heads, has_dropout=graph.has_dropout
    )
    nodes = model.node_summaries()
    tables = sum(
        len(rows) * model.table_width(weight)
        for weight, rows in model.named_parameters()
        if is_table(weight)
    )
    made = model.embeddings.numeric_fields
    dense = model.num_parameters() - tables
    return {
        "experiment": Path(name).stem,
        "dataset": card.name,
        "num_fields": model.embeddings.num_fields,
        "vectors": card.vectors,
        "embedding_dim": experiment.model.embedding_dim,
        "parameters": None if data is None else model.num_parameters(),
        "table_parameters": None if data is None else tables,
        "dense_parameters": dense,
        "flops_per_row": model.flops_per_row(),
        "combine": experiment.model.combine,
        "sources": [
            {"name": name, "kind": _kind(name, experiment.model, card), "shape": list(shape)}
            for name, shape in model.graph.sources_read().items()
        ],
        "numeric": [
            {
                "kind": group.kind,
                "columns": list(group.columns),
                "num_fields": group.num_fields,
                "parameters": group.parameters,
                "flops_per_row": group.flops_per_row,
            }
            for group in ([] if made is None else made.summaries())
        ],
        "nodes": [
            {
                "name": node.name,
                "layer": node.layer,
                "inputs": list(node.inputs),
                "input_shapes": [list(shape) for shape in node.input_shapes],
                "output_shape": list(node.output_shape),
                "parameters": node.parameters,
                "flops_per_row": node.flops_per_row,
                "bytes_per_row": node.bytes_per_row,
                "degree": node.degree,
            }
            for node in nodes
        ],
    }


def _kind(source: str, model: "ModelConfig", card: "DatasetCard") -> str:
    """What a source is, in a word or two."""
    if source in model.groups:
        return "some fields"
    if source in model.tables:
        return "tables of their own"
    if source in card.vectors:
        return "content vector"
    return {"fields": "embeddings", "dense": "numbers", "joint": "field of numbers"}[source]


def _draw(content: dict[str, Any], path: Path) -> None:
    from recsys_had.errors import DataError
    from recsys_had.graph_plot import Box, draw_graph

    if path.suffix not in {".png", ".svg"}:
        raise DataError(f"{path}: must end in .png or .svg.")
    read = {name for node in content["nodes"] for name in node["inputs"]}
    boxes = [
        Box(source["name"], (" x ".join(map(str, source["shape"])), source["kind"]), kind="source")
        for source in content["sources"]
    ]
    for node in content["nodes"]:
        degree = "not polynomial" if node["degree"] is None else f"degree {node['degree']}"
        lines = (
            f"{node['layer']}, gives {' x '.join(map(str, node['output_shape']))}",
            f"{node['parameters']:,} parameters, {degree}",
        )
        boxes.append(Box(node["name"], lines, tuple(node["inputs"])))
    # With a space behind it: a node may be called logit.
    heads = tuple(node["name"] for node in content["nodes"] if node["name"] not in read)
    combined = f"{content['combine']} of the heads and a bias"
    boxes.append(Box("logit ", (combined,), heads, kind="logit"))
    try:
        draw_graph(boxes, path, title=f"{content['experiment']} on {content['dataset']}")
    except OSError as cause:
        raise DataError(f"{path}: cannot be written: {cause.strerror}.") from cause


def _as_text(content: dict[str, Any]) -> str:
    header = (
        "node",
        "layer",
        "reads",
        "in",
        "out",
        "parameters",
        "operations/row",
        "bytes/row",
        "degree",
    )
    rows = [header]
    for node in content["nodes"]:
        rows.append(
            (
                node["name"],
                node["layer"],
                ", ".join(node["inputs"]),
                ", ".join(" x ".join(map(str, shape)) for shape in node["input_shapes"]),
                " x ".join(map(str, node["output_shape"])),
                f"{node['parameters']:,}",
                f"{node['flops_per_row']:,}",
                f"{node['bytes_per_row']:,}",
                "not polynomial" if node["degree"] is None else str(node["degree"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [_numeric_line(group) for group in content["numeric"] if group["kind"] != "scale"]
    total, outside = content["parameters"], f"{content['dense_parameters']:,}"
    if total is None:
        parameters = f"{outside} parameters outside the tables (give --data to count theirs too)"
    else:
        parameters = f"{total:,} parameters, {outside} of them outside the tables"
    vectors = "".join(f"; vector {name} of {size}" for name, size in content["vectors"].items())
    lines.append(
        f"{content['num_fields']} fields of width {content['embedding_dim']}{vectors}; "
        f"{parameters}; "
        f"{content['flops_per_row']:,} operations a row."
    )
    return "\n".join(lines)


def _numeric_line(group: dict[str, Any]) -> str:
    columns, fields = len(group["columns"]), group["num_fields"]
    return (
        f"{group['kind']} makes {fields} {'field' if fields == 1 else 'fields'} of {columns} "
        f"numeric {'column' if columns == 1 else 'columns'}: {group['parameters']:,} parameters, "
        f"{group['flops_per_row']:,} operations a row."
    )
