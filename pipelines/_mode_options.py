"""The options of the commands that score faster, or in less memory, and not exactly."""

import click
from recsys_had.pipelines._command import with_options

# Gives a command --precision, --tables and --compile.
mode_options = with_options(
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        type=click.Choice(["fp32", "bf16"]),
        help="bf16: matrix products in bfloat16.",
    ),
    click.option(
        "--tables",
        default="saved",
        show_default=True,
        type=click.Choice(["saved", "int8"]),
        help="int8: embedding tables as 8-bit rows, a quarter of the memory or a little more.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Make code of the model, for whole batches; needs a C++ compiler.",
    ),
)
