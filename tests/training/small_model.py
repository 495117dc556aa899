"""A model with several sets of tables, batch normalisation, a dense input; rows for two ranks."""

from typing import Any

# 7 steps of 64 and one of 3: of two ranks the first has two rows of it, the other one.
ROWS = {"train": 451, "valid": 64}
MODEL: dict[str, Any] = {
    # A width that FBGEMM pads, and that can be cut in two.
    "embedding_dim": 6,
    # One of its own fields comes before the order of the card.
    "tables": {"some": {"fields": ("price", "tags", "A"), "dim": 3}},
    "nodes": {
        "linear": {"layer": "linear"},
        "fm": {"layer": "fm"},
        "gated": {"layer": "lhuc", "inputs": ("fields", "some")},
        "deep": {"layer": "mlp", "hidden_units": (8,), "batch_norm": True},
    },
}
# Every optimizer tables can have.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"embedding_optimizer": "sgd", "embedding_learning_rate": 0.5},
    "adagrad": {"embedding_optimizer": "adagrad"},
    "rowwise_adagrad": {"embedding_optimizer": "rowwise_adagrad"},
    "lazy_adam": {"embedding_optimizer": "lazy_adam"},
    "adam": {"regime": "published", "legacy_defaults": False},
}
