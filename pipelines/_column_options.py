"""The options of the commands that write columns beside the score."""

import click
from recsys_had.pipelines._command import with_options

# What --novelty means where no method is named: recsys_had.extra_columns.LAST, which is not
# imported for a line of help.
_LAST = "last"

# Gives a command --explain, --baseline and --novelty.
column_options = with_options(
    click.option(
        "--explain",
        type=click.IntRange(min=1),
        metavar="K",
        help="Also tell the K fields and pairs of fields that moved each score most.",
    ),
    click.option(
        "--baseline",
        default="mean",
        show_default=True,
        type=click.Choice(["mean", "unseen"]),
        help="What --explain compares a row with: the mean of the training rows, or a row of "
        "values that were never seen.",
    ),
    click.option(
        "--novelty",
        is_flag=False,
        flag_value=_LAST,
        default=None,
        metavar="[METHOD]",
        help="Add a column novelty: how unlike the training rows each row is, higher is more "
        "unlike. By the method the run was given last, or by METHOD.",
    ),
)
