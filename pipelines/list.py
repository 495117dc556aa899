"""``recsys-had list``: what is bundled, one line each."""

from typing import Any

import click
from recsys_had.pipelines._command import Result, recsys_had_command


@recsys_had_command("list")
@click.argument("what", type=click.Choice(["datasets", "experiments", "interactions"]))
def command(what: str) -> Result:
    """List bundled datasets, experiments or interactions."""
    rows = {"datasets": _datasets, "experiments": _experiments, "interactions": _interactions}
    found = rows[what]()
    width = max((len(row["name"]) for row in found), default=0)
    lines = [f"{row['name']:<{width}}  {row['summary']}{_extra(row)}" for row in found]
    return Result({what: found}, "\n".join(lines))


def _extra(row: dict[str, Any]) -> str:
    if "domain" not in row:
        return ""
    degree = "not polynomial" if row["degree"] is None else f"degree {row['degree']}"
    return f" [{row['domain']}, {degree}, {row['cost']}; {row['paper']}]"


def _datasets() -> list[dict[str, Any]]:
    from recsys_had.bundled import datasets_dir
    from recsys_had.schema import load_card

    names = sorted(path.parent.name for path in datasets_dir().glob("*/dataset.yaml"))
    return [{"name": name, "summary": load_card(name).description} for name in names]


def _experiments() -> list[dict[str, Any]]:
    from recsys_had.errors import ConfigError
    from recsys_had.experiment_file import bundled_experiments
    from recsys_had.yamlfile import read_yaml

    return [
        {"name": name, "summary": str(read_yaml(path, error=ConfigError).content["description"])}
        for name, path in bundled_experiments().items()
    ]


def _interactions() -> list[dict[str, Any]]:
    from recsys_had.interactions import catalog

    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "domain": entry.domain,
            "degree": entry.degree,
            "paper": entry.paper,
            "cost": entry.cost,
        }
        for entry in catalog().values()
    ]
