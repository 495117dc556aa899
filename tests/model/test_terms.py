"""The terms of a logit: what the last sum or linear map of each head reads."""

import numpy as np
import pytest
import torch
from torch import nn

from recsys_had.batch import Batch, EncodedRows
from recsys_had.bundled import configs_dir
from recsys_had.config import ModelConfig
from recsys_had.data.folder import layout_of
from recsys_had.errors import ConfigError
from recsys_had.experiment_file import load_experiment_with_card
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import FieldSpec, field_specs
from recsys_had.model.graph import InteractionGraph
from recsys_had.nodes import NodeConfig

MODELS = sorted(path.stem.removeprefix("frappe_") for path in configs_dir().glob("frappe_*.yaml"))


def _model(name: str) -> tuple[CTRModel, Batch]:
    """A bundled model on Frappe's card with weights that are not small, and some rows."""
    experiment, card = load_experiment_with_card(str(configs_dir() / f"frappe_{name}.yaml"), ())
    specs = field_specs(card, {field.name: 6 for field in card.fields})
    model = CTRModel(fields=specs, dense=card.dense, config=experiment.model, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.embeddings.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 2)
        # Some begin at 0, where a sum of whatever would be right.
        for weight in model.graph.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) / 20)
    ids = np.random.default_rng(3).integers(0, 6, (40, len(card.fields))).astype(np.int32)
    rows = EncodedRows(layout_of(card), np.arange(40), None, ids, {}, np.empty((40, 0), np.float32))
    return model.eval(), rows.to_batch()


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_of_every_bundled_model_is_the_weighted_sum_of_its_terms(name: str) -> None:
    model, batch = _model(name)
    model.graph.require_terms()
    with torch.inference_mode():
        plain = model(batch)
        logit, terms = model.with_terms(batch)
    assert torch.equal(logit, plain)
    weights, offset = model.graph.term_weights()
    joined = torch.cat(terms, dim=1)
    assert joined.shape == (40, len(weights)) and joined.shape[1] > 1
    summed = (joined.double() * weights.double()).sum(dim=1) + offset
    assert plain.std() > 1e-4
    torch.testing.assert_close(summed.float(), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        # Ten fields of ten numbers; hidden layers of 400.
        ("lr", [10]),
        ("fm", [10, 10]),
        ("deepfm", [10, 10, 400]),
        ("dcn_v2", [500]),
        ("xdeepfm", [10, 64, 400]),
        ("fwfm", [100, 45]),
        ("fcn", [100, 100]),
    ],
)
def test_the_terms_are_what_the_last_sum_reads(name: str, widths: list[int]) -> None:
    model, batch = _model(name)
    with torch.inference_mode():
        _, terms = model.with_terms(batch)
    assert [part.shape[1] for part in terms] == widths


def _graph(**nodes: NodeConfig) -> InteractionGraph:
    return InteractionGraph(nodes=nodes, sources={"fields": (2, 2)}).eval()


def test_terms_of_a_factorization_machine_by_hand() -> None:
    graph = _graph(fm=NodeConfig(layer="fm"))
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    logit, (terms,) = graph.with_terms({"fields": x})
    # (1 + 3)^2 - 1 - 9 = 6 and (2 + 4)^2 - 4 - 16 = 16; half their sum is 1 * 3 + 2 * 4.
    assert terms.tolist() == [[6.0, 16.0]]
    assert graph.term_weights()[0].tolist() == [0.5, 0.5]
    assert logit.tolist() == [11.0]


def test_differences_multiples_means_and_biases_are_taken_apart() -> None:
    formula = (
        "2 * pool(flatten(fields), 'C', 'mean') - lin(flatten(fields), out=1, bias=3.0) "
        "+ pool(flatten(fields), 'C', 'max')"
    )
    graph = _graph(odd=NodeConfig(layer="formula", formula=formula))
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    logit, terms = graph.with_terms({"fields": x})
    weights, offset = graph.term_weights()
    learned = next(p for p in graph.parameters() if p.numel() == 4)
    assert [part.tolist() for part in terms] == [[[1.0, 2.0, 3.0, 6.0]]] * 2 + [[[6.0]]]
    assert weights[:4].tolist() == [0.5] * 4
    assert torch.equal(weights[4:8], -learned.detach().flatten())
    assert weights[8] == 1.0
    assert offset == -3.0
    torch.testing.assert_close(logit, (torch.cat(terms, 1) * weights).sum(1) + offset)


def test_weights_are_those_of_the_moment() -> None:
    graph = _graph(deep=NodeConfig(layer="mlp", options={"hidden_units": (3,)}))
    head = next(iter(graph.heads["deep"].values()))
    assert isinstance(head.weight, nn.Parameter)
    with torch.no_grad():
        head.weight.fill_(7.0)
    assert graph.term_weights()[0].tolist() == [7.0] * 3


def test_a_logit_that_is_no_sum_is_refused_by_name() -> None:
    node = NodeConfig(layer="formula", formula="pool(flatten(fields), 'C', 'max')")
    graph = _graph(largest=node)
    with pytest.raises(ConfigError, match=r"^model\.nodes: largest gives the logit as a number"):
        graph.require_terms()


def test_a_logit_of_too_many_terms_is_refused_by_name() -> None:
    fields = [FieldSpec(name=f"f{number}", num_embeddings=2) for number in range(50)]
    nodes = {name: NodeConfig(layer=name) for name in ("linear", "fmfm")}
    config = ModelConfig(embedding_dim=8, nodes=nodes)
    graph = CTRModel(fields=fields, dense=(), config=config).graph
    # 1,225 pairs of 8 numbers, and 50 weights.
    with pytest.raises(
        ConfigError, match=r"model\.nodes: linear, fmfm .* sum of 9,850 terms a row"
    ):
        graph.require_terms()


def test_a_sum_of_a_number_with_itself_many_times_over_is_one_term() -> None:
    # Taken apart they would be 2^60.
    text = "y = lin(flatten(x), out=1)\nfor _ in range(60):\n    y = 0.5 * (y + y)\ny"
    nodes = {"a": NodeConfig(layer="formula", options={"formula": text})}
    graph = InteractionGraph(nodes=nodes, sources={"fields": (2, 3)}).eval()
    logit, terms = graph.with_terms({"fields": torch.randn(5, 2, 3)})
    weights, offset = graph.term_weights()
    assert [tuple(found.shape) for found in terms] == [(5, 1)]
    torch.testing.assert_close(terms[0] @ weights + offset, logit)


def test_a_deep_multiple_of_a_number_is_taken_apart() -> None:
    # Deeper than Python calls itself.
    loop = "for _ in range(100):\n    for _ in range(20):\n        y = -y\n"
    text = f"y = lin(flatten(x), out=1)\n{loop}y"
    nodes = {"a": NodeConfig(layer="formula", options={"formula": text})}
    graph = InteractionGraph(nodes=nodes, sources={"fields": (2, 3)}).eval()
    logit, terms = graph.with_terms({"fields": torch.randn(5, 2, 3)})
    weights, offset = graph.term_weights()
    assert [tuple(found.shape) for found in terms] == [(5, 6)]
    torch.testing.assert_close(terms[0] @ weights + offset, logit)
