"""Random search with an equal number of trials for every model, from the same space."""

import hashlib
import random
from collections.abc import Iterator

from recsys_had import interactions
from recsys_had.config import Experiment
from recsys_had.nodes import FORMULA

DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def trials(experiment: Experiment, count: int) -> list[tuple[str, ...]]:
    """Overrides of each trial: the experiment as it is, then settings drawn about it.

    Drawn are the learning rate (up to a factor of 3 either way), the L2 penalty on the tables (up
    to 10), one dropout for all nodes that have any, and one layer more or less of each node that
    counts its layers. The draws depend on the model's nodes alone, so that a benchmark that was
    stopped goes on with the same ones.

    Args:
        experiment: what is tuned.
        count: number of trials.

    >>> from recsys_had.experiment_file import load_experiment
    >>> found = trials(load_experiment("frappe_dcn_v2"), 12)
    >>> len(found), found[0]
    (12, ())
    >>> [override.split("=")[0] for override in found[1]][:3]
    ['train.learning_rate', 'train.embedding_l2', 'model.nodes.cross.num_layers']
    """
    text = "|".join(f"{name}:{node.layer}" for name, node in experiment.model.nodes.items())
    luck = random.Random(hashlib.sha256(text.encode()).hexdigest())
    return [(), *(tuple(_drawn(experiment, luck)) for _ in range(count - 1))]


def _drawn(experiment: Experiment, luck: random.Random) -> Iterator[str]:
    train = experiment.train
    yield f"train.learning_rate={train.learning_rate * 3 ** luck.uniform(-1, 1):.3g}"
    if train.embedding_l2:
        yield f"train.embedding_l2={train.embedding_l2 * 10 ** luck.uniform(-1, 1):.3g}"
    dropout = luck.choice(DROPOUTS)
    if getattr(train.loss, "passes", 1) > 1:
        # Without dropout the passes such a loss compares would be all alike.
        dropout = max(dropout, min(filter(None, DROPOUTS)))
    for name, node in experiment.model.nodes.items():
        known = {} if node.layer == FORMULA else interactions.options(node.layer)
        if "dropout" in known:
            yield f"model.nodes.{name}.dropout={dropout}"
        if "num_layers" in known:
            layers = node.options.get("num_layers", known["num_layers"].default)
            yield f"model.nodes.{name}.num_layers={max(1, layers + luck.choice((-1, 0, 1)))}"
