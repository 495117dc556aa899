"""Modes of scoring: faster or smaller than the exact one, and not exact."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from recsys_had.model.ctr import CTRModel
from recsys_had.model.int8_tables import quantise_tables
from recsys_had.model.program_runner import require_compiler

Precision = Literal["fp32", "bf16"]
Tables = Literal["saved", "int8"]


@dataclass(frozen=True)
class Mode:
    """How a model is run when it scores; a plain value that can be sent to another process.

    What holds of a row's score on one kind of processor:

    - exact, and with int8 tables alone: the same to the bit in any batch, by any number of
      threads and processes;
    - in bfloat16 or compiled: the same to the bit by any number of threads and processes. Other
      batch sizes may round otherwise, and so may the last rows of a block, which fill no batch.

    Args:
        precision: ``bf16`` has matrix products take and give bfloat16, by torch's autocast;
            weights stay float32, and so do lookups and all that is no matrix product.
        tables: ``int8`` holds embedding tables as 8-bit rows
            (:mod:`recsys_had.model.int8_tables`), which become float32 when they are looked up.
        compile: whether torch.compile makes code of the graph, for batches of full size; others
            run as they stand.

    Raises:
        ValueError: a word is none of those.

    >>> str(Mode()), str(Mode(precision="bf16", tables="int8", compile=True))
    ('exact', 'bf16, int8 tables, compiled')
    """

    precision: Precision = "fp32"
    tables: Tables = "saved"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, words in (("precision", get_args(Precision)), ("tables", get_args(Tables))):
            if getattr(self, name) not in words:
                raise ValueError(f"{name}: must be one of {words}; got {getattr(self, name)!r}.")

    def __str__(self) -> str:
        words = [
            *(["bf16"] if self.precision == "bf16" else []),
            *(["int8 tables"] if self.tables == "int8" else []),
            *(["compiled"] if self.compile else []),
        ]
        return ", ".join(words) or "exact"

    @property
    def is_exact(self) -> bool:
        """Whether it is the mode all others are measured by."""
        return self == Mode()

    @property
    def keeps_bits_in_any_batch(self) -> bool:
        """Whether a row's score is the same to the bit whatever batch it comes in."""
        return self.precision == "fp32" and not self.compile

    @property
    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def apply(self, model: CTRModel, *, rows: int) -> None:
        """Has a model score so; its tables may become others.

        Args:
            model: in evaluation mode, with plain torch's tables.
            rows: of a batch of full size.

        Raises:
            ConfigError: there is no compiler, or the tables have no 8-bit form.
        """
        if self.compile:
            require_compiler("--compile", told="option")
        if self.tables == "int8":
            quantise_tables(model.embeddings)
        if not self.keeps_bits_in_any_batch:
            model.graph.score_with(
                compiled_rows=rows if self.compile else None, half=self.precision == "bf16"
            )


EXACT = Mode()
