"""What every command shares: exit codes, where output goes, how a result is told."""

import functools
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from recsys_had.errors import RecsysHadError

if TYPE_CHECKING:
    from recsys_had.storage import AnyPath

_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Result:
    """What a command found.

    Args:
        content: printed as one JSON object under ``--json``.
        text: printed otherwise.
    """

    content: Mapping[str, Any]
    text: str


class ManyValuesCommand(click.Command):
    """A command whose repeatable options take several values at once: ``--raw a.tsv b.tsv``.

    But for those whose metavar tells of one value alone, without the dots: after them stand words
    that are theirs as little as ``train.epochs=2`` is a table's.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Writes the option before each of its values."""
        return super().parse_args(ctx, self._spelled_out(args))

    def _spelled_out(self, args: list[str]) -> list[str]:
        options = {
            name: option
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        found: list[str] = []
        has_argument = False
        many: str | None = None  # the repeatable option that takes further words
        words = iter(args)
        for word in words:
            if word == "--":
                return [*found, word, *words]
            if word.startswith("-") and len(word) > 1:
                name = word.partition("=")[0]
                option = options.get(name)
                found.append(word)
                many = name if option is not None and _takes_many(option) else None
                if option is not None and name == word and not _may_stand_alone(option):
                    found += [value for value in (next(words, None),) if value is not None]
            elif many is not None and has_argument:
                found += [many, word]
            else:
                found.append(word)
                has_argument, many = True, None
        return found


def path_or_url(text: str) -> "AnyPath":
    """The type of an option that may name a place in an object store."""
    from recsys_had.storage import any_path

    return any_path(text)


def local_path(text: str) -> Path:
    """The type of an option that may not: a Path would take a URL for a folder named ``s3:``."""
    from recsys_had.storage import is_url

    if is_url(text):
        raise click.BadParameter(f"{text}: must be a path on this machine, not a URL.")
    return Path(text)


def with_options(
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives several commands the same options, listed in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _may_stand_alone(option: click.Option) -> bool:
    """Whether its value may be left out; then the next word may be another option."""
    return isinstance(option.flag_value, str)


def _takes_many(option: click.Option) -> bool:
    return option.multiple and (option.metavar is None or option.metavar.endswith("..."))


def is_first_rank() -> bool:
    """Whether this process may print: under torchrun only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def recsys_had_command(
    name: str, *, shares_memory: bool = False, **settings: Any
) -> Callable[[Callable[..., Result]], click.Command]:
    """Makes a click command of a function that returns a :class:`Result`.

    Exit codes: 0 done, 2 the user's mistake (one line per problem on stderr), 1 a bug, 130
    interrupted, 143 terminated. stdout is the result, stderr the log.

    Args:
        name: of the command.
        shares_memory: whether threads hand large arrays on, so that all take them from one heap.
        settings: of click's command.
    """

    def decorate(work: Callable[..., Result]) -> click.Command:
        @functools.wraps(work)
        def run(*, as_json: bool, **options: Any) -> None:
            _prepare()
            if shares_memory:
                # Before libraries begin threads, which would have heaps of their own.
                from recsys_had.allocator import share_freed_memory

                share_freed_memory()
            sys.exit(_run(lambda: work(**options), as_json=as_json))

        option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
        make: Callable[[Any], click.Command] = click.command(
            name, cls=ManyValuesCommand, **settings
        )
        return make(option(run))

    return decorate


def _run(work: Callable[[], Result], *, as_json: bool) -> int:
    try:
        result = work()
    except RecsysHadError as error:
        _tell_problems(error)
        return 2
    except KeyboardInterrupt:
        _say("interrupted.")
        return 128 + signal.SIGINT
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        return _pipe_closed()
    except Exception:
        traceback.print_exc()
        _say("this is a bug in recsys_had; the lines above say where.")
        return 1
    if is_first_rank():
        try:
            print(json.dumps(result.content) if as_json else result.text, flush=True)
        except BrokenPipeError:
            return _pipe_closed()
    return 0


def _pipe_closed() -> int:
    # The reader of stdout has left: nothing more can be said there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def _tell_problems(error: RecsysHadError) -> None:
    # Of a host whose ranks alone have met it, say a path that is not there, the first tells.
    alone = error.speaks or os.environ.get("LOCAL_RANK") == "0"
    for problem in error.problems[:_MAX_PROBLEMS]:
        _say(problem, anyway=alone)
    if error.total > min(len(error.problems), _MAX_PROBLEMS):
        told = f"{error.total} problems in all; the first {_MAX_PROBLEMS} are shown."
        _say(told, anyway=alone)


def _say(text: str, *, anyway: bool = False) -> None:
    if anyway or is_first_rank():
        print(text, file=sys.stderr, flush=True)


def _prepare() -> None:
    """Settings that must stand before anything heavy is imported."""
    # Idle OpenMP threads that spin made a contended backward pass 60 times as slow.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What torch's C++ says of a lost connection, in stacks of frames, is told in one line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    _silence_libraries()
    signal.signal(signal.SIGTERM, _terminate)
    level = logging.INFO if is_first_rank() else logging.ERROR
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("recsys_had")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _silence_libraries() -> None:
    """Keeps what libraries tell their own developers out of a user's log."""
    warnings.filterwarnings("ignore", module=r"(torch|torchrec|fbgemm_gpu|mlflow)(\.|$)")
    warnings.filterwarnings("ignore", message=".*deprecating ShardedTensor")
    for name in ("torchrec", "torch.fx._symbolic_trace", "torch.distributed", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
