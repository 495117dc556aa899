"""``recsys-had serve``: the batch predictor behind a port."""

import json
from pathlib import Path
from typing import Literal

import click
from recsys_had.pipelines._column_options import column_options
from recsys_had.pipelines._command import Result, local_path, recsys_had_command
from recsys_had.pipelines._mode_options import mode_options


@recsys_had_command("serve")
@click.argument("run", type=local_path)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0: any that is free, told when it is ready.",
)
@click.option("--batch-size", default=8192, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--max-body-bytes",
    default=8 << 20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bytes of a request's body.",
)
@click.option(
    "--max-rows",
    default=1 << 16,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows of a request.",
)
@click.option(
    "--max-open",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    help="Requests read, waiting and scored at once; others are told to come again.",
)
@click.option(
    "--body-timeout",
    "body_timeout_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds until a request's headers, and then its body, must have arrived.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Cores that score; all of them else.")
@column_options
@mode_options
def command(
    run: Path,
    host: str,
    port: int,
    batch_size: int,
    max_body_bytes: int,
    max_rows: int,
    max_open: int,
    body_timeout_s: float,
    threads: int | None,
    explain: int | None,
    baseline: str,
    novelty: str | None,
    precision: Literal["fp32", "bf16"],
    tables: Literal["saved", "int8"],
    compiled: bool,
) -> Result:
    """Score raw rows over HTTP with RUN: POST /score; GET /health, /metrics and /schema.

    For tests and staging: one process, no authentication. Under --json the one object is printed
    when requests are answered. SIGTERM and Ctrl-C end it, once those in flight are answered.
    """
    as_json = click.get_current_context().params["as_json"]
    serve(
        run,
        host=host,
        port=port,
        batch_size=batch_size,
        max_body_bytes=max_body_bytes,
        max_rows=max_rows,
        max_open=max_open,
        body_timeout_s=body_timeout_s,
        threads=threads,
        explain=explain,
        baseline=baseline,
        novelty=novelty,
        precision=precision,
        tables=tables,
        compiled=compiled,
        as_json=as_json,
    )
    raise SystemExit(0)


def serve(
    run: Path,
    *,
    host: str,
    port: int,
    batch_size: int,
    max_body_bytes: int,
    max_rows: int,
    max_open: int,
    body_timeout_s: float,
    threads: int | None,
    explain: int | None = None,
    baseline: str = "mean",
    novelty: str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    tables: Literal["saved", "int8"] = "saved",
    compiled: bool = False,
    as_json: bool = False,
) -> None:
    """Serves until a signal; prints where as soon as requests are answered."""
    from recsys_had.errors import ConfigError

    try:
        from recsys_had.serving.app import make_app
        from recsys_had.serving.server import bind, run_server, told_host
    except ModuleNotFoundError as cause:
        if cause.name not in ("fastapi", "starlette", "uvicorn", "h11"):
            raise
        raise ConfigError(
            f"serve: {cause.name} is not installed. Run `pip install 'recsys_had[serve]'`."
        ) from cause
    from recsys_had.extra_columns import extra_columns
    from recsys_had.scoring import BatchPredictor, Mode, error_of_drawn_rows, told_error
    from recsys_had.serving.scorer import Limits, Scorer

    mode = Mode(precision, tables, compiled)
    asked = extra_columns(explain=explain, baseline=baseline, novelty=novelty)
    with bind(host, port) as listener:
        predictor = BatchPredictor.load(run, batch_size=batch_size, num_lanes=threads, mode=mode)
        # It has the model compiled, too, before anybody asks.
        error = None if mode.is_exact else error_of_drawn_rows(predictor)
        scorer = Scorer(
            predictor,
            extras=[make(predictor) for make in asked],
            limits=Limits(
                max_body_bytes=max_body_bytes,
                max_rows=max_rows,
                max_open=max_open,
                body_timeout_s=body_timeout_s,
            ),
        )
        address, chosen = listener.getsockname()[:2]
        url = f"http://{told_host(address)}:{chosen}"

        def tell() -> None:
            content = {
                "host": address,
                "port": chosen,
                "url": url,
                "run_digest": predictor.run.manifest["digest"],
                "mode": mode.content,
                "score_error": error,
            }
            text = f"{run}: served at {url}; Ctrl-C ends it."
            if error is not None:
                text += f"\n{told_error(mode, error, of='randomly drawn')}"
            print(json.dumps(content) if as_json else text, flush=True)

        try:
            run_server(make_app(scorer), listener, head_timeout_s=body_timeout_s, on_ready=tell)
        finally:
            scorer.close()
