"""An equal budget: as many trials for every model, drawn from the same space."""

import pytest

from recsys_had.config import Experiment
from recsys_had.experiment_file import bundled_experiments, load_experiment
from recsys_had.tuning import trials


@pytest.mark.parametrize("name", [name for name in bundled_experiments() if "frappe_" in name])
def test_every_trial_of_every_model_is_an_experiment(name: str) -> None:
    experiment = load_experiment(name)
    found = trials(experiment, 12)
    assert found[0] == ()
    assert len(set(found)) == 12
    for overrides in found:
        load_experiment(name, overrides)


def test_settings_are_drawn_within_the_space_it_tells_of() -> None:
    experiment = load_experiment("frappe_dcn_v2")
    rates, penalties, layers = set(), set(), set()
    for overrides in trials(experiment, 200)[1:]:
        drawn = load_experiment("frappe_dcn_v2", overrides)
        rates.add(drawn.train.learning_rate / experiment.train.learning_rate)
        penalties.add(drawn.train.embedding_l2 / experiment.train.embedding_l2)
        layers.add(drawn.model.nodes["cross"].options["num_layers"])
    assert 1 / 3 - 0.01 < min(rates) < 0.4 and 2.5 < max(rates) < 3.01
    assert 0.099 < min(penalties) < 0.15 and 7 < max(penalties) < 10.1
    of_all = experiment.model.nodes["cross"].options["num_layers"]
    assert layers == {of_all - 1, of_all, of_all + 1}


def test_trials_are_the_same_each_time_and_begin_alike() -> None:
    experiment = load_experiment("frappe_deepfm")
    assert trials(experiment, 12)[:5] == trials(experiment, 5)


def test_a_model_keeps_a_layer() -> None:
    experiment = Experiment.model_validate(
        {
            "dataset": "frappe",
            "model": {"nodes": {"cross": {"layer": "hadamard_cross", "num_layers": 1}}},
        }
    )
    counts = {
        override.split("=")[1]
        for overrides in trials(experiment, 50)[1:]
        for override in overrides
        if "num_layers" in override
    }
    assert counts == {"1", "2"}
