"""How a program runs in training steps: compiled, in half precision, or as it stands."""

import torch
from torch import Tensor

from recsys_had.interactions.algebra.program import Program


class TrainingProgram:
    """A program that is compiled for one number of rows and multiplies in half precision.

    Batches of other sizes, such as an epoch's last, run as they stand: whether a step is compiled
    depends on its rows alone, never on what ran before, so a training that was stopped goes on to
    the bit. Shapes are static for the same reason.

    Args:
        program: what is run.
        compiled_rows: rows of the batches torch.compile is for; None for none.
        half: whether matrix products take and give bfloat16, by torch's autocast. Weights stay
            float32, and so does what comes out.

    >>> from recsys_had.interactions.algebra import source
    >>> x = source(1, 2)
    >>> run = TrainingProgram(Program(x * x, [x]), compiled_rows=None, half=True)
    >>> run(torch.full((1, 1, 2), 3.0)).dtype
    torch.float32
    """

    def __init__(self, program: Program, *, compiled_rows: int | None, half: bool) -> None:
        self._program = program
        self._compiled_rows = compiled_rows
        self._half = half
        self._compiled = program if compiled_rows is None else torch.compile(program, dynamic=False)

    def __call__(self, *sources: Tensor) -> Tensor:
        """Runs; the sources are ``(B, T, C)``."""
        first = sources[0]
        run = self._compiled if len(first) == self._compiled_rows else self._program
        with torch.autocast(first.device.type, torch.bfloat16, enabled=self._half):
            found: Tensor = run(*sources)
        return found.float()
