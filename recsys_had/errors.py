"""The errors a user can cause: one line per problem, all problems at once."""

from collections.abc import Sequence


class RecsysHadError(Exception):
    """A user's mistake, in lines of ``place: what was asked. What is wrong. What to do.``.

    Args:
        problems: one line, or several; each stands on its own.
        total: number of problems found, where only the first ones are told.

    ``speaks`` is set where one rank of several alone knows of it, and so must tell.

    >>> error = DataError(["a.tsv:3: 2 columns.", "a.tsv:9: 7 columns."])
    >>> error.problems
    ('a.tsv:3: 2 columns.', 'a.tsv:9: 7 columns.')
    """

    speaks = False

    def __init__(self, problems: str | Sequence[str], *, total: int | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.total = len(self.problems) if total is None else total
        super().__init__("\n".join(self.problems))


class ConfigError(RecsysHadError):
    """An experiment, an option or the installation is not usable."""


class EngineError(ConfigError):
    """What is to do the work cannot; nothing is wrong with the work."""


class SchemaError(RecsysHadError):
    """A dataset card is not usable, or does not belong to the data it is used with."""


class DataError(RecsysHadError):
    """Raw rows, an encoded data folder or an output folder are not usable."""


class StoreError(DataError):
    """An object store refuses or does not answer; the same command may succeed later."""


class WorkerLostError(DataError):
    """A process that did a part of the work was killed; what is finished is kept."""


class DivergenceError(DataError):
    """A training's loss is no longer a finite number."""


class CheckpointError(RecsysHadError):
    """A run folder or a checkpoint is missing, incomplete or changed."""


class RankError(RecsysHadError):
    """Another process of the training ended, or no longer answers."""
