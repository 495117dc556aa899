"""How a program runs: compiled, in half precision, or as it stands; in training and in scoring."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recsys_had.errors import ConfigError
from recsys_had.interactions.algebra.program import Program

Run = Callable[..., tuple[Tensor, list[Tensor]]]

# Threads that come to a program first would compile it once each.
_FIRST_RUN = threading.Lock()


class ProgramRunner:
    """A program that is compiled for one number of rows and multiplies in half precision.

    Batches of other sizes, such as an epoch's last, run as they stand: whether a batch is compiled
    depends on its rows alone, never on what ran before, so a training that was stopped goes on to
    the bit. Shapes are static for the same reason. Several threads may run it at once.

    Args:
        program: what is run.
        compiled_rows: rows of the batches torch.compile is for; None for none.
        half: whether matrix products take and give bfloat16, by torch's autocast. Weights stay
            float32, and so does what comes out.

    >>> from recsys_had.interactions.algebra import source
    >>> x = source(1, 2)
    >>> run = ProgramRunner(Program(x * x, [x]), compiled_rows=None, half=True)
    >>> run(torch.full((1, 1, 2), 3.0)).dtype
    torch.float32
    """

    def __init__(self, program: Program, *, compiled_rows: int | None, half: bool) -> None:
        self._program = program
        self._compiled_rows = compiled_rows
        self._half = half
        self._compiled: Run = program.with_beside
        if compiled_rows is not None:
            self._compiled = torch.compile(_with_code_of_its_own(program), dynamic=False)
        self._is_compiled = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "ProgramRunner":
        """A runner of the copied program, which is compiled anew."""
        program = copy.deepcopy(self._program, memo)
        return ProgramRunner(program, compiled_rows=self._compiled_rows, half=self._half)

    def __call__(self, *sources: Tensor) -> Tensor:
        """Runs; the sources are ``(B, T, C)``."""
        return self.with_beside(*sources)[0]

    def with_beside(self, *sources: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Runs, and gives the program's further values too."""
        if not self._half:
            return self._run(sources)
        with torch.autocast(sources[0].device.type, torch.bfloat16):
            root, beside = self._run(sources)
        return root.float(), [found.float() for found in beside]

    def _run(self, sources: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        if self._compiled_rows is None or sources[0].shape[0] != self._compiled_rows:
            return self._program.with_beside(*sources)
        if self._is_compiled:
            return self._compiled(*sources)
        with _FIRST_RUN:
            found = self._compiled(*sources)
            self._is_compiled = True
        return found


def require_compiler(place: str, *, told: str) -> None:
    """Refuses to compile for a CPU where no compiler is installed.

    Args:
        place: who asked for it.
        told: what that is, to be left out.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    # As slow to import as torch itself.
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as cause:
        raise ConfigError(
            f"{place}: there is no C++ compiler. Install g++, or leave the {told} out."
        ) from cause


def _with_code_of_its_own(program: Program) -> Run:
    """Runs a program: of one place in the code torch compiles eight graphs and no more."""

    def run(*sources: Tensor) -> tuple[Tensor, list[Tensor]]:
        return program.with_beside(*sources)

    run.__code__ = run.__code__.replace()
    return run
