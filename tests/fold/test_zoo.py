"""The 90 networks of the measurement: what is left, and that no output is wrong, by a judge of its own.

``python -m bench folding`` does the same beside other tools and writes the figures down.
"""

import pytest
import torch
from bench.fold_compare import WRONG, batch_norms_run, functions_run, in_float64, outputs, relative_error
from bench.fold_networks import NETWORKS

import convscope as cs

# One of every kind of fold: plain, transposed, concatenated, forward, pre-activated, frozen into branches.
SAMPLE = (
    "efficientvit_m0", "levit_128s", "mixnet_s", "mobileone_s0", "repghostnet_050",
    "resnet18", "resnetv2_18", "shvit_s1", "starnet_s050", "swiftformer_xs", "test_maxvit",
)  # fmt: skip


def judge(name, merge):
    """Fold one network in float64 and compare everything that can be seen from outside."""
    network = NETWORKS[name]
    exact = in_float64(network.build())
    held = {key: tensor.clone() for key, tensor in exact.state_dict().items()}
    folded = cs.fold(exact, network.shape, merge=merge)
    assert all(torch.equal(tensor, held[key]) for key, tensor in exact.state_dict().items())
    inputs = network.inputs(seed=5, dtype=torch.float64)
    assert batch_norms_run(exact, inputs) == network.batch_norms
    assert relative_error(outputs(exact, inputs), outputs(folded.model, inputs)) < WRONG
    calls = [entry for entry in folded.ledger.entries if "#" in entry.address]
    assert len(calls) == network.batch_norms
    kept, partial = (
        [entry for entry in calls if entry.verdict == verdict] for verdict in ("kept", "partial")
    )
    left = batch_norms_run(folded.model, inputs)
    assert len(kept) == left
    added = functions_run(folded.model, inputs) - functions_run(exact, inputs)
    zeros = sum(isinstance(module, cs.fold.MergedAway) for module in folded.model.modules())
    assert added <= len(partial) + zeros, "only what is left of a shift adds an operator, or a number 0"
    assert all(entry.reason for entry in (*kept, *partial))
    return left + len(partial)


@pytest.mark.whole_zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_no_more_is_left_than_the_reference_leaves_and_nothing_is_wrong(name):
    assert judge(name, merge=False) <= NETWORKS[name].floor


@pytest.mark.whole_zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_merging_branches_leaves_what_is_really_stuck(name):
    assert judge(name, merge=True) <= NETWORKS[name].floor_merged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_a_small_network_of_every_kind(name):
    assert judge(name, merge=True) <= NETWORKS[name].floor_merged


def test_the_table_is_the_published_one():
    """5,272 batch norms; 447 without merging and 278 with it are the reference's."""
    assert len(NETWORKS) == 90
    assert sum(network.batch_norms for network in NETWORKS.values()) == 5272
    assert sum(network.floor for network in NETWORKS.values()) == 447
    assert sum(network.floor_merged for network in NETWORKS.values()) == 278
