"""The command line: names and one line each; a command's code is read when it is called."""

import importlib
import io
import sys

import click

# name: (module beside this one, one line)
_COMMANDS = {
    "ingest": "Encode raw click logs into Parquet shards and vocabularies.",
    "decode": "Write encoded rows back as raw values.",
    "vocab": "Look at a field's vocabulary: values, counts and ids.",
    "drift": "Compare two data folders, or two splits of one, column by column.",
    "profile": "Show encoded rows on a page: click rates, values, coverage, leakage.",
    "train": "Train an experiment on encoded rows; writes a run folder.",
    "evaluate": "Measure a run on a split of encoded rows.",
    "calibrate": "Fit a run's calibrator on its validation rows, and judge it.",
    "predict": "Score raw rows with a run.",
    "interactions": "Show which fields and pairs of fields move a run's scores most.",
    "prune": "Leave out a run's weakest pairs of fields, and measure what that costs and saves.",
    "serve": "Score raw rows over HTTP with a run, for tests and staging.",
    "novelty": "Fit how unlike the training rows a scored row is told to be.",
    "export": "Write a run for other programs: tables, bundle, torch-export or onnx.",
    "describe": "Show a model's nodes, parameters and cost.",
    "plan": "Show where the tables would lie on a cluster, without one.",
    "benchmark": "Train several experiments, several seeds each, and compare them.",
    "list": "List bundled datasets, experiments or interactions.",
    "demo": "Run the whole job on generated rows with a known best AUC.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a day's work."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports one command."""
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"recsys_had.pipelines.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggests the nearest name for an unknown one."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from recsys_had.suggest import nearest

            ctx.fail(f"no command '{args[0]}'.{nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recsys_had")
def main() -> None:
    """Click-through-rate models built on pairwise interactions: train, track and score."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot write is told in escapes, and ends no command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
