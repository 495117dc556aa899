"""Does each interaction learn what it claims? On clicks whose law is known, without any dataset.

Eight fields; a law on some of them gives each row its chance of a click, so the best possible
logloss (Bayes) is known. Each model is a linear part and one interaction over fresh embeddings,
seen every row once. What is told is the excess logloss over Bayes on rows of its own, as a share
of what a model without the law would leave: 1 is nothing learned, 0 is everything.

    python tests/benchmarks/planted.py --out docs/results/planted

Every result is kept in planted.json at once: a stopped run goes on with what is not there.
"""

import argparse
import json
import time
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import torch
from planted_claims import Candidate, candidates, expected
from planted_laws import CONTENT_WIDTH, LAWS, NUM_FIELDS, Law, bounds, draw
from planted_report import LEARNED, write_curves, write_table
from torch import Tensor, nn
from torch.nn import functional

from recsys_had.interactions import names, num_inputs
from recsys_had.interactions._catalog import own_tables
from recsys_had.model.graph import InteractionGraph
from recsys_had.nodes import FORMULA, NodeConfig

TEST_ROWS = 10_000
SHARES_SEEN = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # when it is measured
LEARNED_ALL = 0.01  # a curve ends there
EXACT = 1e-9  # a difference of rounding alone is below it
# Of Adam and of the embeddings: their decay and initial deviation. Only what claims a law tries
# more than the first.
ATTEMPTS: list[dict[str, float]] = [
    {"lr": 0.01},
    {"lr": 0.003},
    {"lr": 0.03},
    {"lr": 0.01, "decay": 0.2},
    {"lr": 0.03, "decay": 0.2},
    {"lr": 0.01, "std": 0.2},
    {"lr": 0.003, "std": 0.2},
    {"lr": 0.01, "std": 1.0},
    {"lr": 0.003, "std": 1.0},
    {"lr": 0.01, "std": 1.0, "decay": 0.2},
]


class Model(nn.Module):
    """A linear part and one interaction over embeddings of their own.

    Content is one more token, by a linear map, for what reads one input. What reads two has the
    fields and the content, and where there is none the fields twice; a bridge, which joins two of
    the same shape, has the fields and a map of the second to their shape.
    """

    def __init__(self, candidate: Candidate, law: Law, *, std: float) -> None:
        super().__init__()
        layer, given = candidate.layer, candidate.options
        is_joined = law.has_content and num_inputs(layer) == 1
        width = law.width
        if layer != "linear":
            width = own_tables(layer, NUM_FIELDS + is_joined, width, **given) or width
        nodes = {"linear": NodeConfig(layer="linear")}
        second = "content" if law.has_content else "fields"
        inputs: tuple[str, ...] = ("fields", second)[: num_inputs(layer)]
        if layer == "bridge":
            text = f"reshape(lin(flatten(x), out={NUM_FIELDS * law.width}), {NUM_FIELDS})"
            nodes["mapped"] = formula(text, second)
            inputs = ("fields", "mapped")
        if is_joined and layer != "linear":
            text = f'cat(fields, lin(content, out={width}), on="T")'
            nodes["row"] = formula(text, "fields", "content")
            inputs = ("row",)
        elif is_joined:
            nodes["weighted"] = formula("lin(content, out=1)", "content")
        if layer != "linear":
            nodes["node"] = NodeConfig(layer=layer, inputs=inputs, options=given)
        if candidate.behind:
            nodes["behind"] = NodeConfig(layer=candidate.behind, inputs=("node",))
            if candidate.is_beside:
                nodes["beside"] = NodeConfig(layer=candidate.behind, inputs=inputs)
        sources = {"linear": (NUM_FIELDS, 1), "fields": (NUM_FIELDS, width)}
        if law.has_content:
            sources["content"] = (1, CONTENT_WIDTH)
        self.graph = InteractionGraph(nodes=nodes, sources=sources)
        self.tables = nn.Embedding(sum(law.num_ids), width)
        self.weights = nn.Embedding(sum(law.num_ids), 1)
        nn.init.normal_(self.tables.weight, std=std)
        nn.init.zeros_(self.weights.weight)
        self.has_content = law.has_content
        self.register_buffer("first", torch.tensor([0, *accumulate(law.num_ids)][:-1]))

    @property
    def degree(self) -> int | None:
        """Derived polynomial degree of the interaction."""
        return self.graph.degree

    def forward(self, ids: Tensor, content: Tensor) -> Tensor:
        """Logits of rows."""
        place = ids + self.first
        sources = {"linear": self.weights(place), "fields": self.tables(place)}
        if self.has_content:
            sources["content"] = content.unsqueeze(1)
        found: Tensor = self.graph(sources)
        return found


def formula(text: str, *inputs: str) -> NodeConfig:
    """A node of a formula."""
    return NodeConfig(layer=FORMULA, inputs=inputs, options={FORMULA: text})


def mixed_difference(candidate: Candidate, law: Law, order: int) -> float:
    """What the first fields, `order` of them, make of a logit only together, at random weights.

    The alternating sum over all ways to change some of their ids: 0 where the model has no product
    of so many. Of a law with content the last one changed is the content.
    """
    torch.manual_seed(0)
    model = Model(candidate, law, std=0.5).double().eval()
    with torch.no_grad():
        for weight in model.parameters():  # some begin at zero
            weight += 0.1 * torch.randn_like(weight)
        ids, content = torch.zeros(64, NUM_FIELDS, dtype=torch.long), torch.randn(2, 64, 8).double()
        ids += torch.arange(64)[:, None] * torch.arange(1, 9) % 3
        total, size = torch.zeros(64).double(), 0.0
        for changed in product((0, 1), repeat=order):
            by_id = changed[:-1] if law.has_content else changed
            now = ids.clone()
            now[:, : len(by_id)] += torch.tensor(by_id, dtype=torch.long)
            logit = model(now, content[changed[-1]])
            total += (-1) ** sum(changed) * logit
            size = max(size, float(logit.abs().max()))
    return float(total.abs().max()) / size


def learn(
    candidate: Candidate, name: str, settings: dict[str, Any], attempt: dict[str, float], seed: int
) -> list[tuple[int, float]]:
    """Rows seen, and the share of the law that is not learned yet."""
    torch.manual_seed(seed)
    num_rows, size = settings["rows"], settings["batch_size"]
    model = Model(candidate, LAWS[name], std=attempt.get("std", settings["std"]))
    steps = num_rows // size
    lr, decay = attempt["lr"], attempt.get("decay", 0.0)
    tables = {"params": [model.tables.weight], "weight_decay": decay}
    others = [weight for weight in model.parameters() if weight is not model.tables.weight]
    optimizer = torch.optim.AdamW([tables, {"params": others}], lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows, test = draw(name, num_rows, seed=11), draw(name, TEST_ROWS, seed=12)
    bayes, blind = bounds(test)
    measured = {round(share * steps) for share in SHARES_SEEN}
    found: list[tuple[int, float]] = []
    for step in range(1, steps + 1):
        some = slice((step - 1) * size, step * size)
        logit = model(rows.ids[some], rows.content[some])
        loss = functional.binary_cross_entropy_with_logits(logit, rows.label[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in measured:
            model.eval()
            with torch.no_grad():
                logit = model(test.ids, test.content)
                left = functional.binary_cross_entropy_with_logits(logit, test.chance)
            model.train()
            found.append((step * size, (float(left) - bayes) / (blind - bayes)))
            if found[-1][1] < LEARNED_ALL:
                break
    return found


def try_to_learn(
    candidate: Candidate, name: str, settings: dict[str, Any], seed: int, known: dict[str, Any]
) -> dict[str, Any]:
    """A law learned by one candidate; what claims it and does not tries again, with other settings.

    Args:
        candidate: what is to learn it.
        name: of the law.
        settings: of the benchmark.
        seed: of the initial weights.
        known: what an earlier run has found with the first of these attempts, if anything.
    """
    law, begin = LAWS[name], time.perf_counter()
    found = {key: value for key, value in known.items() if key != "error"}
    if "curve" not in found:
        degree = Model(candidate, law, std=settings["std"]).degree
        reaches = mixed_difference(candidate, law, law.order) > EXACT
        to_expect = expected(candidate, name, law, degree=degree, reaches=reaches)
        found = {"expected": to_expect, "degree": degree, "tries": 0, "seconds": 0.0}
    while not is_over(found, settings):
        attempt = settings["attempts"][found["tries"]]
        curve = learn(candidate, name, settings, attempt, seed)
        found["tries"] += 1
        if "curve" not in found or curve[-1][1] < found["curve"][-1][1]:
            found |= {"attempt": attempt, "curve": curve}
    found["seconds"] = round(found["seconds"] + time.perf_counter() - begin, 1)
    return found


def is_over(found: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether nothing is left to try."""
    if "curve" not in found:
        return False
    is_settled = found["expected"] != "learn" or found["curve"][-1][1] < LEARNED
    return bool(is_settled or found["tries"] >= len(settings["attempts"]))


def main() -> None:
    """Learns every law with every interaction, and writes table, numbers and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=names())
    parser.add_argument("--laws", nargs="*", default=list(LAWS), choices=list(LAWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--rows", type=int, default=500_000)
    arguments = parser.parse_args()
    settings = {"rows": arguments.rows, "batch_size": 250, "std": 0.5, "attempts": ATTEMPTS}
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "planted.json"
    known = json.loads(path.read_text()) if path.exists() else {"settings": settings, "results": {}}
    tried = known["settings"]["attempts"]
    if known["settings"] | {"attempts": tried + ATTEMPTS[len(tried) :]} != settings:
        raise SystemExit(f"{path}: has other settings; got {settings}. Choose another --out.")
    known["settings"] = settings  # attempts may have been added behind those that were made
    results = known["results"]
    for seed, name in product(arguments.seeds, arguments.laws):
        for candidate in candidates(arguments.names):
            found = results.setdefault(str(candidate), {}).setdefault(name, {})
            before = found.get(str(seed), {})
            if is_over(before, settings):
                continue
            try:
                found[str(seed)] = try_to_learn(candidate, name, settings, seed, before)
            except Exception as problem:  # an interaction in the making must not end the run
                found[str(seed)] = before | {"error": f"{type(problem).__name__}: {problem}"}
            told = {key: x for key, x in found[str(seed)].items() if key != "curve"}
            if "curve" in found[str(seed)]:
                told["left"] = round(found[str(seed)]["curve"][-1][1], 3)
            print(json.dumps({"name": str(candidate), "law": name, **told}), flush=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(known) + "\n")
            new.replace(path)
    write_table(results, arguments.out / "planted.md")
    write_curves(results, arguments.out / "planted.png")


if __name__ == "__main__":
    main()
