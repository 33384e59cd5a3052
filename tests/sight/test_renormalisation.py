"""Against filters taken by hand: explicit loops in float64 and known factors."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from convscope.core.errors import ConvscopeError
from convscope.sight import Renormalisation
from processes import in_processes


def loops_rms(module):
    """Each filter's RMS by which inputs reach which output channel, from an impulse response in float64."""
    weight = module.weight.detach().double()
    groups, found = module.groups, []
    for channel in range(module.out_channels):
        numbers = []
        per_group_in, per_group_out = module.in_channels // groups, module.out_channels // groups
        group = channel // per_group_out
        for source in range(per_group_in):
            if module.transposed:
                numbers.append(weight[group * per_group_in + source, channel % per_group_out])
            else:
                numbers.append(weight[channel, source])
        flat = torch.stack(numbers).flatten()
        found.append(float((flat @ flat / len(flat)) ** 0.5))
    return torch.tensor(found, dtype=torch.float64)


MODULES = {
    "plain": lambda: nn.Conv2d(3, 8, (5, 3)),
    "grouped": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(5, 10, 3, groups=5),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3),
    "transposed in groups": lambda: nn.ConvTranspose2d(6, 4, (3, 2), groups=2),
    "one axis": lambda: nn.Conv1d(3, 4, 5),
    "three axes": lambda: nn.Conv3d(2, 3, 2),
    "square": lambda: nn.Conv2d(4, 4, 4),
    "channels last": lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
    "double": lambda: nn.Conv2d(3, 8, 3).double(),
}


def per_filter(module, values):
    """(filters,) as a tensor that scales each output channel's filter."""
    if not module.transposed:
        return values.view(-1, *[1] * (module.weight.dim() - 1))
    rows = module.in_channels // module.groups
    grid = values.view(module.groups, -1).repeat_interleave(rows, 0)
    return grid.view(*grid.shape, *[1] * (module.weight.dim() - 2))


@pytest.mark.parametrize("kind", MODULES)
def test_filters_beyond_the_radius_are_scaled_to_it_and_others_keep_their_bits(kind):
    module = MODULES[kind]()
    with torch.no_grad():
        sizes = torch.linspace(0.2, 3, module.out_channels, dtype=torch.float64)
        before = loops_rms(module)
        module.weight.mul_(per_filter(module, sizes / before).to(module.weight))
    rms, weight = loops_rms(module), module.weight.detach().clone()
    renormalisation = Renormalisation(module, radius=1.1)
    renormalisation.step()
    factors = torch.where(rms > 1.1, 1.1 / rms, 1.0)
    torch.testing.assert_close(
        module.weight.detach().double(), weight.double() * per_filter(module, factors), rtol=1e-6, atol=0
    )
    kept = (per_filter(module, factors) == 1).expand_as(weight)
    assert torch.equal(module.weight.detach()[kept], weight[kept])
    (layer,) = renormalisation.result().layers
    assert (layer.times, layer.clipped) == (tuple((rms > 1.1).int().tolist()), (int((rms > 1.1).sum()),))
    assert layer.largest_rms == pytest.approx(1.1, rel=1e-6)
    again = module.weight.detach().clone()
    renormalisation.step()
    assert torch.equal(module.weight, again)
    assert renormalisation.result().layers[0].clipped == (int((rms > 1.1).sum()), 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_scaling_twice_is_scaling_once_in_every_precision(dtype):
    for seed in range(20):
        torch.manual_seed(seed)
        module = nn.Conv2d(3, 16, 3).to(dtype)
        renormalisation = Renormalisation(module, radius=0.1)
        renormalisation.step()
        once = module.weight.detach().clone()
        renormalisation.step()
        assert torch.equal(once, module.weight)
        assert (loops_rms(module) <= 0.1 * (1 + 4 * torch.finfo(dtype).eps)).all()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("kind", ["plain", "grouped", "depthwise", "transposed"])
def test_weight_normalisation_is_scaled_by_its_magnitudes(kind, older):
    module = MODULES[kind]()
    dim = 1 if module.transposed else 0
    with pytest.warns(FutureWarning) if older else torch.no_grad():
        normed = weight_norm(module, dim=dim) if older else parametrizations.weight_norm(module, dim=dim)
    before = loops_rms(module)
    radius = float(before.sort().values[1:3].mean())
    Renormalisation(nn.Sequential(normed), radius=radius).step()
    shape = list(module.weight.shape[2:])
    normed(torch.randn(2, module.in_channels, *[size + 4 for size in shape]))  # the older kind's pre-hook
    torch.testing.assert_close(loops_rms(module), before.clamp(max=radius), rtol=1e-5, atol=0)


def test_weights_that_scaling_wouldnt_reach_are_refused():
    for module, reason in (
        (parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), "another parametrisation"),
        (spectral_norm(nn.Conv2d(3, 4, 3)), "another parametrisation"),
        (parametrizations.weight_norm(nn.Conv2d(3, 4, 3), dim=None), "one magnitude per filter"),
        (parametrizations.weight_norm(nn.Conv2d(4, 4, 3), dim=1), "one magnitude per filter"),
        (parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 3, groups=2), dim=1), "one magnitude"),
    ):
        with pytest.raises(ConvscopeError, match=reason):
            Renormalisation(nn.Sequential(nn.Conv2d(3, 3, 1), module))
        assert len(Renormalisation(nn.Sequential(nn.Conv2d(3, 3, 1), module), layers="first").result().layers)


def test_a_shared_weight_is_scaled_once_and_a_frozen_one_never():
    first, second, frozen = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 3)
    second.weight = first.weight
    frozen.weight.requires_grad_(False)
    net = nn.Sequential(first, second, frozen)
    with torch.no_grad():
        first.weight.mul_(10)
    before = frozen.weight.clone()
    renormalisation = Renormalisation(net, radius=0.01)
    renormalisation.step()
    shared, still = renormalisation.result().layers
    assert (shared.name, shared.shared_with, shared.times) == ("0", ("1",), (1, 1, 1))
    torch.testing.assert_close(loops_rms(first), torch.full((3,), 0.01, dtype=torch.float64))
    assert torch.equal(frozen.weight, before)
    assert (still.frozen, still.num_steps, still.clipped) == (True, 0, ())
    frozen.weight.requires_grad_(True)
    renormalisation.step()
    assert not torch.equal(frozen.weight, before)


def test_modules_that_disagree_about_a_shared_weights_filters_are_refused():
    encoder, decoder = nn.Conv2d(3, 5, 3), nn.ConvTranspose2d(5, 3, 3)
    decoder.weight = encoder.weight
    with pytest.raises(ConvscopeError, match="layers 0 and 1, which share one weight"):
        Renormalisation(nn.Sequential(encoder, decoder))


def trained(attached, steps=6, **settings):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    renormalisation = Renormalisation(net, **settings)
    hooks = renormalisation.attach(optimizer) if attached else None
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 7, 6, generator=generator)).square().mean().backward()
        optimizer.step()
        if not attached:
            renormalisation.step()
    if hooks is not None:
        hooks.remove()
        assert not optimizer._optimizer_step_post_hooks
    return net, optimizer, renormalisation


def test_attached_and_called_by_hand_train_alike_and_change_nothing_but_weights():
    by_hook, optimizer, counted = trained(True, radius=0.1)
    by_hand, _, counted_by_hand = trained(False, radius=0.1)
    for one, other in zip(by_hook.parameters(), by_hand.parameters()):
        assert torch.equal(one, other)
    assert counted.result() == counted_by_hand.result()
    assert any(sum(layer.clipped) for layer in counted.result().layers)
    weight, buffer = by_hook[0].weight, optimizer.state[by_hook[0].weight]["momentum_buffer"]
    kept = (id(weight), weight.data_ptr(), weight.grad.clone(), buffer.clone(), weight._version)
    Renormalisation(by_hook, radius=1e-3).step()
    assert (id(by_hook[0].weight), weight.data_ptr()) == kept[:2]
    assert torch.equal(weight.grad, kept[2])
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], kept[3])
    assert weight._version > kept[4]  # a stale graph is refused, as after the optimizer's own step
    assert (weight.requires_grad, weight.is_leaf, weight.grad_fn) == (True, True, None)


def test_a_radius_that_is_never_reached_changes_no_bit_of_a_training():
    plain, _, counted = trained(True, radius=1e9)
    torch.manual_seed(3)
    reference = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten())
    stepped = torch.optim.SGD(reference.parameters(), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        stepped.zero_grad()
        reference(torch.randn(4, 3, 7, 6, generator=generator)).square().mean().backward()
        stepped.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), reference.parameters()))
    assert [finding.fault for finding in counted.result().findings] == ["radius-never-reached"]


def test_a_step_that_the_gradient_scaler_skips_isnt_counted():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    renormalisation = Renormalisation(net, radius=0.01)
    scaler = torch.amp.GradScaler("cpu")
    with renormalisation.attach(optimizer):
        for factor in (1.0, float("inf")):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = net(torch.ones(2, 1, 4, 4)).float().mean() * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert renormalisation.result().layers[0].num_steps == 1
    assert net[0].weight.dtype == torch.float32


def test_two_optimizers_each_look_after_their_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    one, other = (torch.optim.SGD(each.parameters(), lr=0.0) for each in net)
    renormalisation = Renormalisation(net, radius=1e-3)
    with pytest.raises(ConvscopeError, match="weight of 1, which the optimizer given doesn't step"):
        renormalisation.attach(one)
    assert not one._optimizer_step_post_hooks
    with renormalisation.attach(one, other):
        net(torch.ones(1, 3, 6, 6)).sum().backward()
        one.step()
        one.step()
        other.step()
    assert [layer.num_steps for layer in renormalisation.result().layers] == [2, 1]


def test_master_copies_are_refused():
    net = nn.Conv2d(3, 4, 3).bfloat16()
    masters = [parameter.detach().float().requires_grad_() for parameter in net.parameters()]
    with pytest.raises(ConvscopeError, match="not master copies"):
        Renormalisation(net).attach(torch.optim.SGD(masters, lr=0.1))


def test_weights_that_are_no_numbers_stay_and_are_named():
    net = nn.Conv2d(1, 5, 3)
    with torch.no_grad():
        net.weight[1, 0, 0, 0] = float("nan")
        net.weight[3] = float("inf")
        net.weight[4] = 1e30
        net.weight[0] = 0
    before = net.weight.detach().clone()
    renormalisation = Renormalisation(net, radius=0.01)
    renormalisation.step()
    result = renormalisation.result()
    assert result.layers[0].not_finite == (1, 3)
    assert result.layers[0].times == (0, 0, 1, 0, 1)
    assert torch.equal(net.weight[[0, 3]], before[[0, 3]])
    torch.testing.assert_close(net.weight[4], torch.full((1, 3, 3), 0.01))
    assert "filters-not-finite" in {finding.fault for finding in result.findings}
    assert json.loads(result.to_json())["layers"][0]["not_finite"] == [1, 3]


def test_the_radius_is_judged_by_the_first_step_and_by_the_inputs():
    usual = nn.Conv2d(3, 64, 3)  # PyTorch's own initial weights: an RMS of 1 / √(3 · 27) = 0.111
    renormalisation = Renormalisation(usual, input_rms=1.0)
    assert [f.fault for f in renormalisation.result().findings] == ["radius-for-other-inputs"]
    renormalisation.step()
    found = {f.fault: f for f in renormalisation.result().findings}
    assert set(found) == {"radius-for-other-inputs", "radius-below-most-filters"}
    assert found["radius-for-other-inputs"].evidence[2].value == pytest.approx(5.8)
    small = copy.deepcopy(usual)
    with torch.no_grad():
        small.weight.normal_(std=0.01)
        small.weight[7] *= 30
    renormalisation = Renormalisation(small, input_rms=58)
    renormalisation.step()
    assert renormalisation.result().findings == ()
    assert renormalisation.result().layers[0].times[7] == 1


@pytest.mark.parametrize("steps", [511, 512, 513, 1025, 1537, 1539])
def test_counts_over_time_keep_their_sum_in_bounded_room(steps):
    net = nn.Conv2d(1, 1, 1, bias=False)
    renormalisation = Renormalisation(net, radius=1.0)
    expected = []
    for step in range(steps):
        with torch.no_grad():
            net.weight.fill_(2.0 if step % 3 == 0 else 0.5)
        renormalisation.step()
        expected.append(step % 3 == 0)
    (layer,) = renormalisation.result().layers
    width = layer.steps_per_bin
    assert len(layer.clipped) <= 512
    assert list(layer.clipped) == [sum(expected[i : i + width]) for i in range(0, steps, width)]
    assert layer.share_clipped == pytest.approx(sum(expected) / steps)


def test_bad_input_is_told():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for radius in (0, -1, float("nan"), float("inf"), "0.1", True):
        with pytest.raises(ConvscopeError, match="a positive number"):
            Renormalisation(net, radius)
    with pytest.raises(ConvscopeError, match="layer '1' to renormalise"):
        Renormalisation(net, layers=["1"])
    with pytest.raises(ConvscopeError, match="name at least one"):
        Renormalisation(net, layers=[])
    with pytest.raises(ConvscopeError, match="without convolution modules"):
        Renormalisation(nn.Linear(3, 3))
    with pytest.raises(ConvscopeError, match="meta device"):
        Renormalisation(nn.Conv2d(3, 4, 3, device="meta"))
    with pytest.raises(ConvscopeError, match="no shape yet"):
        Renormalisation(nn.LazyConv2d(4, 3))
    with pytest.raises(ConvscopeError, match="optimizer of type Sequential"):
        Renormalisation(net).attach(net)


@pytest.mark.slow
def test_two_processes_keep_equal_weights(tmp_path):
    one, other = in_processes(2, _train_in_process, tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert loops_rms_of(one["0.weight"]).max() <= 0.0501


def loops_rms_of(weight):
    return weight.double().square().mean((1, 2, 3)).sqrt()


def _train_in_process(rank, _):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    parallel = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.3, momentum=0.9)
    with Renormalisation(parallel, radius=0.05).attach(optimizer):
        for step in range(4):
            generator = torch.Generator().manual_seed(2 * step + rank)
            optimizer.zero_grad()
            parallel(torch.randn(3, 3, 6, 6, generator=generator)).square().mean().backward()
            optimizer.step()
    return net.state_dict()
