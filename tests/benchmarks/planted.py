"""Does each interaction learn what it claims? On clicks whose law is known, without any dataset.

Eight fields of twelve ids; a law on some of them gives each row its chance of a click, so the best
possible logloss (Bayes) is known. Each model is a linear part and one interaction over fresh
embeddings, seen every row once. What is told is the excess logloss over Bayes on rows of its own,
as a share of what a model without the law would leave: 1 is nothing learned, 0 is everything.

    python tests/benchmarks/planted.py --out report
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.interactions import names, num_inputs
from recsys_had.model.graph import InteractionGraph
from recsys_had.nodes import NodeConfig

NUM_FIELDS, NUM_IDS, WIDTH = 8, 12, 8
DEVIATION = 1.5  # of the planted logit
TEST_ROWS, BATCH_SIZE = 10_000, 500
Floats = NDArray[np.float64]


def factors(generator: np.random.Generator, rank: int) -> Floats:
    """A vector for each id of each field, of mean 0 over the ids: ``(F, ids, rank)``."""
    drawn = generator.normal(size=(NUM_FIELDS, NUM_IDS, rank))
    return drawn - drawn.mean(axis=1, keepdims=True)


def products(u: Floats, ids: NDArray[np.int64], sets: tuple[tuple[int, ...], ...]) -> Floats:
    """Sums over sets of fields of the products of their vectors."""
    total = np.zeros(len(ids))
    for fields in sets:
        total += np.prod([u[f, ids[:, f]] for f in fields], axis=0).sum(axis=1)
    return total


def gated(generator: np.random.Generator, ids: NDArray[np.int64]) -> Floats:
    """A pair that field 6 switches on and off."""
    gate = generator.permutation(np.arange(NUM_IDS) % 2)[ids[:, 6]]
    return gate * products(factors(generator, 2), ids, ((0, 1), (2, 3)))


def modulated(generator: np.random.Generator, ids: NDArray[np.int64]) -> Floats:
    """A single effect whose sign the context, field 6, decides."""
    sign = generator.permutation(np.arange(NUM_IDS) % 2)[ids[:, 6]] * 2 - 1
    return sign * generator.normal(size=NUM_IDS)[ids[:, 0]]


# Field 7 has a part in no law.
LAWS: dict[str, Callable[[np.random.Generator, NDArray[np.int64]], Floats]] = {
    "pairs, rank 2": lambda g, ids: products(factors(g, 2), ids, ((0, 1), (2, 3), (4, 5))),
    "pairs, rank 8": lambda g, ids: products(factors(g, 8), ids, ((0, 1), (2, 3), (4, 5))),
    "triples": lambda g, ids: products(factors(g, 2), ids, ((0, 1, 2), (3, 4, 5))),
    "order 4": lambda g, ids: products(factors(g, 1), ids, ((0, 1, 2, 3),)),
    "gate": gated,
    "context": modulated,
}


def draw(law: str, num_rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and true chances of some rows; the law itself depends on its name alone."""
    ids = np.random.default_rng(seed).integers(0, NUM_IDS, (num_rows, NUM_FIELDS))
    logit = LAWS[law](np.random.default_rng(7), ids)
    chance = 1 / (1 + np.exp(-DEVIATION * logit / logit.std()))
    label = np.random.default_rng(seed + 1).random(num_rows) < chance
    return torch.as_tensor(ids), torch.as_tensor(label).float(), torch.as_tensor(chance).float()


class Model(nn.Module):
    """A linear part and one interaction over embeddings of their own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        nodes = {"linear": NodeConfig(layer="linear")}
        if name == "linear":
            pass
        elif num_inputs(name) == 2:
            nodes["node"] = NodeConfig(layer=name, inputs=("fields", "fields"))
        else:
            nodes["node"] = NodeConfig(layer=name)
        self.tables = nn.Embedding(NUM_FIELDS * NUM_IDS, WIDTH)
        self.weights = nn.Embedding(NUM_FIELDS * NUM_IDS, 1)
        nn.init.normal_(self.tables.weight, std=0.1)
        nn.init.zeros_(self.weights.weight)
        sources = {"linear": (NUM_FIELDS, 1), "fields": (NUM_FIELDS, WIDTH)}
        self.graph = InteractionGraph(nodes=nodes, sources=sources)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of rows of ids."""
        place = ids + torch.arange(NUM_FIELDS) * NUM_IDS
        found: Tensor = self.graph({"linear": self.weights(place), "fields": self.tables(place)})
        return found


def learn(name: str, law: str, num_rows: int, checks: int) -> list[tuple[int, float]]:
    """Rows seen, and the share of the law that is not learned yet."""
    torch.manual_seed(1)
    model = Model(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_rows // BATCH_SIZE)
    ids, label, _ = draw(law, num_rows, seed=11)
    test_ids, _, chance = draw(law, TEST_ROWS, seed=12)
    bayes = functional.binary_cross_entropy(chance, chance)
    blind = functional.binary_cross_entropy(chance.mean().expand(TEST_ROWS), chance)
    found = []
    every = num_rows // checks
    for first in range(0, num_rows, BATCH_SIZE):
        some = slice(first, first + BATCH_SIZE)
        loss = functional.binary_cross_entropy_with_logits(model(ids[some]), label[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen = first + BATCH_SIZE
        if seen % every == 0:
            model.eval()
            with torch.no_grad():
                left = functional.binary_cross_entropy_with_logits(model(test_ids), chance)
            model.train()
            found.append((seen, float((left - bayes) / (blind - bayes))))
    return found


def draw_curves(results: dict[str, dict[str, list[tuple[int, float]]]], path: Path) -> None:
    """A panel a law: what is left against rows seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.5), layout="constrained")
    for axes, law in zip(figure.subplots(2, 3, sharey=True).flat, LAWS, strict=True):
        for name, curves in results.items():
            axes.plot(*zip(*curves[law], strict=True), linewidth=1, label=name)
        axes.set(title=law, xlabel="rows seen", ylabel="share of the law not learned")
        axes.set(ylim=(-0.02, 1.2), xscale="log")
        axes.grid(color="#e3e6ea")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    """Learns every law with every interaction, and writes table, numbers and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=names())
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--checks", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in arguments.names:
        begin = time.perf_counter()
        results[name] = {law: learn(name, law, arguments.rows, arguments.checks) for law in LAWS}
        last = {law: round(curve[-1][1], 3) for law, curve in results[name].items()}
        print(json.dumps({"name": name, **last, "s": round(time.perf_counter() - begin, 1)}),
              flush=True)  # fmt: skip
    lines = ["| interaction | " + " | ".join(LAWS) + " |", "| --- |" + " --- |" * len(LAWS)]
    for name, curves in results.items():
        cells = (f"{curves[law][-1][1]:.3f}" for law in LAWS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (arguments.out / "planted.md").write_text("\n".join(lines) + "\n")
    (arguments.out / "planted.json").write_text(json.dumps(results) + "\n")
    draw_curves(results, arguments.out / "planted.png")


if __name__ == "__main__":
    main()
