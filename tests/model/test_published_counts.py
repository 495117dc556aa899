"""Learned numbers of the bundled experiments, and those that the published runs (BARS) report."""

import pytest

from recsys_had.config import ModelConfig
from recsys_had.experiment_file import load_experiment
from recsys_had.model.ctr import CTRModel
from recsys_had.model.graph import InteractionGraph, table_widths
from recsys_had.model.tables import FieldSpec
from recsys_had.schema import load_card

# Rows of Frappe's tables, a row for unknown ids in each. 5,389 together, which is all that counts.
FRAPPE = {
    "user": 955,
    "item": 4083,
    "daytime": 8,
    "weekday": 8,
    "isweekend": 3,
    "homework": 4,
    "cost": 3,
    "weather": 10,
    "country": 81,
    "city": 234,
}

# What a published run counts and its experiment does not have; below 0, what it has more.
# A row of each field's table that no id reads, 10 fields of 10 numbers.
UNUSED_ROWS = 10 * 10
# A second head's bias: here the logit has one.
SECOND_BIAS = 1
# A second network, made and not used: 100 to 400, 400, 400 and 1, normalised.
UNUSED_NETWORK = 101 * 400 + 2 * 401 * 400 + 401 + 2 * 1200
# The same of the two further tables, which the gates read.
UNUSED_CONTEXT_ROWS = 2 * 10
# Of four layers' queries, keys and unary weights, which centring and the softmax take away.
CANCELLED_BIASES = 4 * (128 + 128 + 1)

PUBLISHED = [
    ("frappe_lr", 5_390, 0),
    ("frappe_fm", 59_280, 0),
    ("frappe_fwfm", 107_826, 0),
    ("frappe_fmfm", 59_730, 0),
    ("frappe_afm", 60_826, 0),
    ("frappe_ffm", 490_400, 0),
    ("frappe_hofm", 113_170, 0),
    ("frappe_dlrm", 417_891, 0),
    ("frappe_nfm", 384_880, 0),
    ("frappe_ipnn", 433_491, 0),
    ("frappe_wide_deep", 423_280, 0),
    ("frappe_deepfm", 423_280, 0),
    ("frappe_cross_net", 55_191, 0),
    ("frappe_cross_net_v2", 94_391, 0),
    ("frappe_dcn", 418_591, 0),
    ("frappe_dcn_v2", 458_391, 0),
    ("frappe_cin", 147_984, 0),
    ("frappe_xdeepfm", 429_809, SECOND_BIAS),
    ("frappe_afn", 4_066_711, 0),
    ("frappe_afn_plus", 4_482_205, 0),
    ("frappe_autoint", 306_051, 0),
    ("frappe_autoint_plus", 622_180, SECOND_BIAS),
    ("frappe_masknet_parallel", 571_691, 0),
    ("frappe_edcn", 86_351, 0),
    ("frappe_fibinet", 743_480, 0),
    ("frappe_dnn", 781_892, UNUSED_NETWORK),
    ("frappe_finalmlp", 253_392, UNUSED_ROWS + UNUSED_CONTEXT_ROWS),
    ("frappe_finalnet", 256_791, UNUSED_ROWS),
    ("frappe_finalnet_2b", 338_502, UNUSED_ROWS + SECOND_BIAS),
    ("frappe_deepim", 417_922, SECOND_BIAS),
    ("frappe_aoanet", 418_331, 0),
    ("frappe_destine", 623_346, SECOND_BIAS + CANCELLED_BIASES),
    ("frappe_sam", 58_791, 0),
]


@pytest.mark.parametrize(
    ("experiment", "published", "difference"), PUBLISHED, ids=[row[0] for row in PUBLISHED]
)
def test_an_experiment_has_the_published_number_of_parameters_but_for_what_is_told(
    experiment: str, published: int, difference: int
) -> None:
    config = load_experiment(experiment).model
    model = CTRModel(
        fields=[FieldSpec(name, rows) for name, rows in FRAPPE.items()], dense=[], config=config
    )
    assert model.num_parameters() == published - difference - biases_before_a_norm(config)


def biases_before_a_norm(config: ModelConfig) -> int:
    """Of networks under batch normalisation, which takes away what they add: here there is none."""
    return sum(
        sum(node.options["hidden_units"])
        for node in config.nodes.values()
        if node.layer == "mlp" and node.options.get("batch_norm")
    )


def test_frappes_tables_have_the_published_number_of_rows() -> None:
    assert list(FRAPPE) == [field.name for field in load_card("frappe").fields]
    # A linear model has a number for each row, and a bias.
    assert sum(FRAPPE.values()) == 5_390 - 1


# Rows of the tables of the published x4 runs together, an unused one for each field.
ROWS = {"criteo_x4": 910_747, "avazu_x4": 3_750_999}

PUBLISHED_X4 = [
    ("criteo_x4", "masknet_parallel", 20_358_077, 0),
    ("criteo_x4", "finalmlp", 19_524_954, 0),
    ("criteo_x4", "finalnet_2b", 18_153_050, SECOND_BIAS),
    ("avazu_x4", "masknet_parallel", 76_594_787, 0),
    ("avazu_x4", "finalmlp", 69_046_986, 0),
    ("avazu_x4", "finalnet_2b", 69_766_586, SECOND_BIAS),
]


@pytest.mark.parametrize(("dataset", "model", "published", "difference"), PUBLISHED_X4)
def test_an_x4_experiment_has_the_published_number_of_parameters_above_its_tables(
    dataset: str, model: str, published: int, difference: int
) -> None:
    config = load_experiment(f"{dataset}_{model}").model
    num_fields = len(load_card(dataset).fields)
    assert table_widths(config, num_fields) == {"fields": 16}
    graph = InteractionGraph(nodes=config.nodes, sources={"fields": (num_fields, 16)})
    learned = sum(weight.numel() for weight in graph.parameters())
    expected = published - difference - biases_before_a_norm(config)
    assert ROWS[dataset] * 16 + learned == expected
