"""Every kind of branch: merged, run in float64 on two sizes, and its operators counted."""

import copy
import pickle

import pytest
import torch
from torch import nn

from convscope.fold.edits import carry_out
from convscope.fold.merge import MergedAway, MergedBranches, merge_branches
from fold.merge.branches import Block, assert_same, bn, conv, merged_twin, pair, ran
from fold.merge.sums import SPREAD, WHOLE

SHAPE, OTHER = (2, 4, 6, 5), (3, 4, 4, 4)


@pytest.mark.parametrize("case", WHOLE)
def test_branches_become_one_convolution_and_no_sum_is_left(case, randomised):
    make, num_batch_norms, num_convolutions = WHOLE[case]
    net = randomised(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), make()))
    twin, merged = merged_twin(net, SHAPE)
    _, norms, convolutions, names = ran(twin, torch.randn(SHAPE, dtype=torch.float64))
    assert (norms, convolutions) == (num_batch_norms, num_convolutions + 1)
    outer = case.startswith("a sum of other")
    assert outer or not {"add", "add_", "sub", "rsub", "mul"} & set(names)
    assert merged.unmerged == ()
    assert_same(net, twin, SHAPE, OTHER, (1, 4, 7, 9))
    kind = twin[2].m if outer else twin[2]
    assert isinstance(kind, MergedBranches)


@pytest.mark.parametrize("case", SPREAD)
def test_a_sum_written_out_keeps_its_code(case, randomised):
    make, num_batch_norms, num_convolutions = SPREAD[case]
    net = randomised(make())
    twin, _ = merged_twin(net, SHAPE)
    _, norms, convolutions, _ = ran(twin, torch.randn(SHAPE, dtype=torch.float64))
    assert (norms, convolutions) == (num_batch_norms, num_convolutions)
    assert type(twin) is Block
    assert any(isinstance(module, MergedAway) for module in twin.modules())
    assert_same(net, twin, SHAPE, OTHER, (1, 4, 7, 9))


AXES = {
    "1d": (nn.Conv1d, nn.BatchNorm1d, (2, 3, 3), (1, 3, 9)),
    "2d": (nn.Conv2d, nn.BatchNorm2d, (3, 3, 3, 3), (2, 3, 5, 4)),
    "3d": (nn.Conv3d, nn.BatchNorm3d, (3, 3, 3, 3, 3), (2, 3, 4, 5, 3)),
}


@pytest.mark.parametrize("axes", AXES)
def test_any_number_of_axes_with_equal_sizes(axes, randomised):
    layer, norm, shape, other = AXES[axes]
    net = randomised(
        nn.Sequential(
            Block(
                lambda s, x: s.a(x) + s.b(x) + s.c(x),
                a=layer(3, 3, 3, padding=1),
                b=layer(3, 3, 1, bias=False),
                c=norm(3),
            )
        )
    )
    twin, merged = merged_twin(net, shape)
    assert [(s.into, s.batch_norms) for s in merged.sums] == [("0.a#1", ("0.c#1",))]
    assert isinstance(twin[0].a, layer)
    assert_same(net, twin, shape, other)


def test_names_stay_and_what_vanished_is_told(randomised):
    net = randomised(
        nn.Sequential(
            Block(
                lambda s, x: s.act(s.big[1](x) + s.small(x) + s.skip(x)),
                big=nn.ModuleList([nn.Identity(), pair(c=conv(), n=bn())]),
                small=pair(c=conv(1), n=bn()),
                skip=bn(),
                act=nn.PReLU(),
            )
        )
    )
    twin, merged = merged_twin(net, SHAPE)
    (found,) = merged.sums
    assert found.into == "0.big.1.0#1"
    assert found.batch_norms == ("0.big.1.1#1", "0.small.1#1", "0.skip#1")
    assert {"0.small#1", "0.small.0#1", "0.small.1#1", "0.skip#1"} <= set(found.vanished)
    assert not any(address.startswith(("0.big.1.0", "0.act")) for address in found.vanished)
    assert set(twin.state_dict()) == {"0.big.1.0.weight", "0.big.1.0.bias", "0.act.weight"}
    assert set(twin.state_dict()) - set(net.state_dict()) == set()
    assert "was Block" in repr(twin)


def test_the_network_is_left_alone_and_random_numbers_too(randomised):
    net = randomised(nn.Sequential(WHOLE["identity"][0]()))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    merged_twin(net, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert type(net[0]) is Block


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_cast_once(dtype, randomised):
    wide = randomised(nn.Sequential(WHOLE["3x3 + 1x1 + bn"][0]())).double()
    narrow = copy.deepcopy(wide).to(dtype)
    edits = merge_branches(wide, SHAPE).edits
    carry_out(narrow, edits)
    carry_out(wide, edits)
    assert narrow[0].a.weight.dtype == narrow[0].a.bias.dtype == dtype
    assert torch.equal(narrow[0].a.weight, wide[0].a.weight.to(dtype))


@pytest.mark.parametrize("case", [WHOLE["before and after"], SPREAD["pooled branch"]])
def test_the_result_trains_exports_and_loads_its_state(case, randomised):
    twin, _ = merged_twin(randomised(nn.Sequential(case[0]())), SHAPE)
    x = torch.randn(SHAPE, dtype=torch.float64)
    twin(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(twin, (x,)).module()(x), twin(x))
    twin.load_state_dict({name: tensor + 0 for name, tensor in twin.state_dict().items()})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_what_stands_in_the_place_of_branches_scripts_and_pickles(randomised):
    for case in (WHOLE["before and after"], SPREAD["pooled branch"]):
        twin, _ = merged_twin(randomised(nn.Sequential(case[0]())), SHAPE)
        x = torch.randn(SHAPE, dtype=torch.float64)
        made = [module for module in twin.modules() if isinstance(module, MergedBranches | MergedAway)]
        assert made
        for module in made:
            assert torch.equal(torch.jit.script(module)(x), module(x))
            assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))
