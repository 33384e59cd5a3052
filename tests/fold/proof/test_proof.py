"""The comparison itself: it must see what is wrong."""

import math

import pytest
import torch
from torch import nn

from convscope.fold.planning.plan import Place
from convscope.fold.proof.differences import difference
from convscope.fold.proof.proof import NotComparable, Witness
from convscope.fold.proof.runs import tensors_of
from convscope.fold.proof.trials import described

INPUTS = described((2, 3, 6, 5), torch.float32)


def compared(net, change=lambda network: None, places=(), inputs=INPUTS):
    """What a witness says of a network and a changed one, which are one object here."""
    witness = Witness(net, inputs, [place.address for place in places], torch.float64)
    change(net)
    return witness.compare(net, places)


def place(scale=1.0, shift=0.0, address="0#1"):
    return Place(
        address, *(torch.full((1, 4, 1, 1), number, dtype=torch.float64) for number in (scale, shift))
    )


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3)).double()


def test_difference_by_hand():
    maximum, mean = difference([torch.tensor([1.0, -4.0])], [torch.tensor([1.5, -4.0])])
    assert (maximum, mean) == (0.5 / 4, 0.25 / 4)


def test_tiny_outputs_are_compared_at_their_own_size():
    maximum, _ = difference([torch.ones(2), torch.full((2,), 1e-3)], [torch.ones(2), torch.full((2,), 2e-3)])
    assert maximum == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.inf], [1.0, math.inf], 0.0),
        ([1.0, math.inf], [1.0, -math.inf], math.inf),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([], [], 0.0),
    ],
)
def test_difference_of_awkward_values(before, after, expected):
    assert difference([torch.tensor(before)], [torch.tensor(after)])[0] == expected


def test_integers_and_flags_are_compared_too():
    assert difference([torch.tensor([1, 2])], [torch.tensor([1, 3])])[0] == 0.5
    assert difference([torch.tensor([True])], [torch.tensor([False])])[0] == 1.0


def test_tensors_of_walks_containers_and_objects():
    class Output:
        def __init__(self):
            self.logits = torch.zeros(1)

    assert len(tensors_of({"a": torch.zeros(1), "b": (torch.zeros(2), None)})) == 2
    assert len(tensors_of(Output())) == 1


def test_no_change_is_no_difference():
    comparison = compared(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).double().eval(), places=(place(),)
    )
    assert comparison.max_error == comparison.mean_error == 0
    assert comparison.at == {"0#1": 0.0}
    shapes = [shape for trial in comparison.trials for shape in trial.shapes()]
    assert shapes == ["(2, 3, 6, 5)", "(2, 3, 6, 5)", "(2, 3, 10, 9)", "(5, 3, 6, 5)"]


def test_a_small_change_is_seen():
    def change(network):
        with torch.no_grad():
            network[0].weight[0, 0, 0, 0] += 1e-7

    comparison = compared(small(), change)
    assert not comparison.within(1e-9)
    assert comparison.max_error < 1e-6


@pytest.mark.parametrize("at", [(0, 0), (3, 2)])
def test_a_place_with_its_gauge(at):
    """W' = 2 W and b' = 2 b + 3 give 2 y + 3; any other number is seen, in every channel."""

    def change(network):
        with torch.no_grad():
            network[0].weight *= 2
            network[0].bias.mul_(2).add_(3)

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()).double()
    comparison = compared(net, change, (place(2.0, 3.0),))
    assert comparison.at["0#1"] < 1e-14
    wrong = place(2.0, 3.0)
    wrong.shift[0, at[0]] += 1e-6
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()).double()
    assert 1e-8 < compared(net, change, (wrong,)).at["0#1"] < 1e-5
    assert compared(small(), change, (wrong,)).wrong(1e-9).places == {"0#1"}


def test_a_place_that_is_wrong_in_one_trial_only():
    """For the size given and for another number of samples it is right, and the outputs never show it."""

    class Sized(nn.Conv2d):
        changed = False

        def forward(self, x):
            return super().forward(x) * (2 if self.changed and x.shape[-1] == 9 else 1)

    class Nothing(nn.Module):
        def forward(self, x):
            return 0 * x

    net = nn.Sequential(Sized(3, 4, 1), Nothing()).double()
    comparison = compared(net, lambda network: setattr(network[0], "changed", True), (place(),))
    assert comparison.max_error == 0
    assert comparison.wrong(1e-9).places == {"0#1"}


def test_gauges_of_single_samples_are_compared_where_there_are_as_many():
    gauge = torch.tensor([1.0, 2.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 4, 1, 1)

    class Doubled(nn.Module):
        def forward(self, x):
            return torch.cat([x[:1], 2 * x[1:]]) if len(x) == 2 else x

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity()).double()
    places = (Place("1#1", gauge, 0 * gauge),)

    def change(network):
        network[1] = Doubled()

    assert compared(net, change, places).at == {"1#1": 0.0}


def test_a_change_that_breaks_the_network_is_a_failure():
    comparison = compared(small(), lambda net: net.append(nn.Linear(7, 7).double()))
    assert comparison.failure.startswith("RuntimeError")
    assert comparison.failed_in == "1#1"
    assert not comparison.within(math.inf)


def test_a_comparison_ends_where_it_fails_and_begins_there_next_time():
    """Only the inputs of another size differ, which are the second to be tried."""

    class Sized(nn.Conv2d):
        factor = 1

        def forward(self, x):
            return super().forward(x) * (self.factor if x.shape[-1] == 9 else 1)

    net = nn.Sequential(Sized(3, 4, 1)).double()
    witness = Witness(net, INPUTS, ["0#1"], torch.float64)
    net[0].factor = 2
    for num_trials in (2, 1):
        comparison = witness.compare(net, (place(),), 1e-9)
        assert comparison.failed_on == "other size"
        assert len(comparison.trials) == num_trials
    assert witness.passes == 4 + 2 + 1
    net[0].factor = 1
    labels = [trial.label() for trial in witness.compare(net, (place(),), 1e-9).trials]
    assert labels == [
        "(2, 3, 6, 5) random",
        "(2, 3, 6, 5) random again",
        "(2, 3, 10, 9) other size",
        "(5, 3, 6, 5) other number",
    ]


def test_a_forced_run_shows_what_is_wrong_in_itself():
    """All three values differ, but the middle layer only doubles what the first one has doubled."""

    def changed(network, *factors):
        with torch.no_grad():
            for layer, factor in zip(network, factors, strict=True):
                layer.weight *= factor

    net = nn.Sequential(*(nn.Conv2d(4 if i else 3, 4, 1, bias=False) for i in range(3))).double()
    places = tuple(place(address=f"{i}#1") for i in range(3))
    witness = Witness(net, INPUTS, [each.address for each in places], torch.float64)
    changed(net, 2, 1, 3)
    assert witness.compare(net, places).wrong(1e-9).places == {"0#1", "1#1", "2#1"}
    wrong = witness.forced(net, places, 1e-9)
    assert wrong.places == {"0#1", "2#1"}
    assert not wrong.outputs
    assert not wrong.shifted


def test_writing_to_inputs_is_no_match_unless_it_did_before():
    class Writing(nn.Module):
        writes = False

        def forward(self, x):
            return x.add_(0) if self.writes else x + 0

    comparison = compared(Writing(), lambda net: setattr(net, "writes", True))
    assert comparison.writes
    assert not comparison.within(math.inf)
    always = Writing()
    always.writes = True
    assert compared(always).within(0)


def test_a_place_that_is_not_reached_is_no_match():
    comparison = compared(small(), lambda network: network.insert(0, nn.Identity()), (place(),))
    assert comparison.at == {"0#1": math.inf}


def test_a_fixed_input_size_is_tried_with_another_batch():
    comparison = compared(nn.Sequential(nn.Flatten(), nn.Linear(90, 2)).double())
    assert comparison.trials[-1].shapes() == ("(5, 3, 6, 5)",)


def test_random_networks_are_compared_with_the_same_random_numbers():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    before = torch.get_rng_state()
    assert compared(Noisy()).max_error == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_network_that_runs_on_nothing():
    with pytest.raises(NotComparable, match="RuntimeError"):
        Witness(nn.Conv2d(5, 4, 3).double(), INPUTS, (), torch.float64)
