"""Three gloo processes run once; every test compares something of what they found with one process."""

import copy
import multiprocessing
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from convscope.core.errors import ConvscopeError
from convscope.norm import BatchNorm1d, BatchNorm2d
from convscope.norm.layers.sync import SyncBatchNorm
from norm.four_steps import double, four_steps, relative
from norm.layers.sync_cases import CASES, STEPS, parameters, shares
from norm.layers.sync_processes import SCENARIOS, found_by, images, network

SLOW = ["compiled", "a_process_in_eval_mode", "a_process_without_backward"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    names = [name for name in SCENARIOS if name not in SLOW]
    findings = found_by(tmp_path_factory.mktemp("processes"), names)
    assert not multiprocessing.active_children()
    return findings


@pytest.fixture
def found(everything):
    """What all processes found in a scenario, by rank."""

    def of(name):
        failures = [findings["failed"] for findings in everything if "failed" in findings]
        assert all(name in findings for findings in everything), "\n".join(failures)
        return [findings[name] for findings in everything]

    return of


def features(tensor):
    """(N, C, …) as (N · …, C): a batch in which no shape is left."""
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def valid(share):
    every = torch.ones(share.x.shape[0], *share.x.shape[2:], dtype=torch.bool)
    return (every if share.mask is None else share.mask).flatten()


def one_process(name, step, ranks):
    """The float64 oracle: output, gradients of x, γ and β, mean and unbiased variance of the whole batch."""
    case = CASES[name]
    parts = shares(name, step)[:ranks]
    keep = torch.cat([valid(part) for part in parts])
    x, dy = (torch.cat([features(getattr(part, key)) for part in parts])[keep] for key in ("x", "dy"))
    weight, bias = parameters(case.channels) if case.options.get("affine", True) else (None, None)
    leaves = [leaf for leaf in double(x, weight, bias) if leaf is not None]
    affine = leaves[1:] or [None, None]
    y, mean, variance = four_steps(leaves[0], *affine, (0,), case.options.get("eps", 1e-5))
    grads = torch.autograd.grad(y, leaves, dy.double())
    return y.detach(), grads, mean.flatten(), variance.flatten() * len(x) / (len(x) - 1)


RUNS = [(group, name) for group in ("all", "pair") for name in CASES]


@pytest.mark.parametrize(("group", "name"), RUNS)
def test_outputs_and_gradients_are_those_of_the_whole_batch(found, group, name):
    """Unequal shares (pytorch#22192, #36382), shares of nothing (#74944), views (#62967), every layout."""
    ranks, case = 3 if group == "all" else 2, CASES[name]
    results = [result[group, name][0] for result in found("batches")[:ranks]]
    tolerance = TOLERANCE[case.dtype]
    for step in range(STEPS):
        parts = shares(name, step)[:ranks]
        y, grads, _, _ = one_process(name, step, ranks)
        keep = [valid(part) for part in parts]
        ours = torch.cat([features(result[step][0])[rows] for result, rows in zip(results, keep)])
        dx = torch.cat([features(result[step][2][0])[rows] for result, rows in zip(results, keep)])
        assert relative(ours, y) < tolerance
        # Of two values x̂ is ±1 whatever they are: hardly a gradient is left, and rounding shows.
        largest = 1.0 if len(y) == 2 else float(grads[0].abs().max())
        assert float((dx.double() - grads[0]).abs().max()) < tolerance * largest
        for index, expected in enumerate(grads[1:], start=1):
            summed = sum(result[step][2][index].double() for result in results)
            assert relative(summed, expected) < max(tolerance / 4, 4e-6 if case.dtype != torch.float64 else 0)
        for result, part, rows in zip(results, parts, keep):
            output, same_strides, (dx, *_) = result[step]
            assert output.dtype == dx.dtype == part.x.dtype
            assert output.shape == dx.shape == part.x.shape
            assert same_strides or case.views
            assert not features(output)[~rows].any()  # padding holds NaN
            assert not features(dx)[~rows].any()


@pytest.mark.parametrize(("group", "name"), RUNS)
def test_running_averages_are_those_of_the_whole_batch_on_every_process(found, group, name):
    ranks, case = 3 if group == "all" else 2, CASES[name]
    states = [result[group, name][1] for result in found("batches")[:ranks]]
    assert all(state.keys() == states[0].keys() for state in states)
    assert all(torch.equal(state[key], states[0][key]) for state in states for key in states[0])
    if not case.options.get("track_running_stats", True):
        assert "running_mean" not in states[0]
        return
    momentum = case.options.get("momentum", 0.1)
    mean, variance = torch.zeros(case.channels).double(), torch.ones(case.channels).double()
    for step in range(STEPS):
        plain = 1 / (step + 1)
        weight = plain if momentum is None else momentum
        weight = max(weight, plain) if "warm_start" in case.options else weight
        _, _, new_mean, new_variance = one_process(name, step, ranks)
        mean, variance = mean.lerp(new_mean, weight), variance.lerp(new_variance, weight)
    assert states[0]["num_batches_tracked"] == STEPS
    assert relative(states[0]["running_mean"], mean) < 5e-7
    assert relative(states[0]["running_var"], variance) < 2e-6
    assert states[0]["running_mean"].dtype == (case.dtype if case.dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    "name", ["unequal", "the second has nothing", "bfloat16", "momentum None", "warm start"]
)
def test_one_process_with_our_batch_norm_finds_the_same(found, name):
    case = CASES[name]
    layer = BatchNorm2d(3, **case.options)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), parameters(3)):
            parameter.copy_(value)
    for step in range(STEPS):
        parts = shares(name, step)
        x = torch.cat([part.x for part in parts]).requires_grad_()
        y = layer(x)
        grads = torch.autograd.grad(y, [x, *layer.parameters()], torch.cat([part.dy for part in parts]))
        results = [result["all", name][0][step] for result in found("batches")]
        ulp = torch.finfo(case.dtype).eps
        assert relative(torch.cat([result[0] for result in results]), y) < 4 * ulp
        assert relative(torch.cat([result[2][0] for result in results]), grads[0]) < 8 * ulp
        for index in (1, 2):
            assert relative(sum(result[2][index] for result in results), grads[index]) < 2e-6
    state = found("batches")[0]["all", name][1]
    assert all(torch.allclose(state[key], value, rtol=1e-6) for key, value in layer.state_dict().items())


def test_the_gradient_of_the_sum_of_losses_is_what_a_process_gets(found):
    """Equal shares: means of shares are not enough, the sums over all of them are needed."""
    results = [result["all", "equal"][0][0] for result in found("batches")]
    for index, result in enumerate(results):
        own = copy.deepcopy(shares("equal", 0)[index])
        layer = BatchNorm2d(3)
        x = own.x.requires_grad_()
        (dx,) = torch.autograd.grad(layer(x), x, own.dy)
        assert relative(dx, result[2][0]) > 0.05  # one process alone would find something else


@pytest.mark.parametrize("name", ["float64", "the second has nothing", "masks"])
def test_second_and_third_derivatives_over_processes(found, name):
    results = [result[name] for result in found("derivatives")]
    parts = shares(name, 0)
    keep = [valid(part) for part in parts]
    rows = torch.cat(keep)
    x, dy = (torch.cat([features(getattr(part, key)) for part in parts])[rows] for key in ("x", "dy"))
    leaves, dy = double(x, *parameters(3)), dy.double()
    output = four_steps(*leaves, (0,), 1e-2)[0] * dy
    for order in range(3):
        grads = torch.autograd.grad(output.sum(), leaves, create_graph=True, allow_unused=True)
        dx = torch.cat([features(result[order][0])[mine] for result, mine in zip(results, keep)])
        assert relative(dx, grads[0]) < 1e-10
        for index, expected in enumerate(grads[1:], start=1):
            ours = [result[order][index] for result in results]
            if expected is None:
                assert all(grad is None or not grad.any() for grad in ours)
            else:
                assert relative(sum(ours), expected) < 1e-10
        output = grads[0].square() + grads[0] * dy


def test_sums_over_processes_and_their_gradients_leave_the_shares_as_they_are(found):
    for whole, gradient, share_kept, weights_kept in found("sums"):
        assert whole.tolist() == [111.0, 114.0, 117.0]
        assert gradient.tolist() == [6.0, 6.0, 6.0]  # 1 + 2 + 3
        assert share_kept
        assert weights_kept


def in_one_process(ranks, steps=1):
    """The gradients and state of PyTorch's own batch norm, right in float64, on the whole batch."""
    net = network()
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, SyncBatchNorm):
                setattr(module, name, nn.BatchNorm2d(4).double())
    xs = []
    for step in range(steps):
        xs.append(torch.cat([images(rank, step) for rank in range(ranks)]).requires_grad_())
        net(xs[-1]).square().mean().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}, net.state_dict(), xs[0].grad


def agree(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("run", "ranks", "steps"), [("all", 3, 1), ("pair", 2, 1), ("accumulated", 3, 2), ("checkpoint", 3, 1)]
)
def test_distributed_data_parallel_finds_the_gradients_of_the_whole_batch(found, run, ranks, steps):
    """Equal shares; DDP's averages, and the running statistics, moved once under a checkpoint."""
    grads, state, _ = in_one_process(ranks, steps)
    for result in found("data_parallel")[:ranks]:
        agree(result[run][0], grads)
        agree(result[run][1], state)


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_checkpointed_blocks_exchange_again_and_move_averages_once(found, reentrant):
    grads, state, dx = in_one_process(3)
    results = [result[reentrant] for result in found("checkpoints")]
    for name, expected in grads.items():
        summed = sum(result[0][name] for result in results)
        torch.testing.assert_close(summed / 3, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        torch.cat([result[0]["x"] for result in results]) / 3, dx, rtol=1e-9, atol=1e-12
    )
    for result in results:
        agree(result[1], state)


def test_one_process_alone_evaluates_and_records_without_exchange(found):
    alone = found("alone")[0]
    assert torch.equal(alone["eval"], network().eval()(images(0)))
    assert alone["moved"] == []
    assert abs(alone["no averages"]) < 1e-6
    assert alone["operators"].count("convscope.moments.default") == 7  # as many as layers
    assert not [operator for operator in alone["operators"] if "c10d" in operator]
    assert alone["macs"] > 0
    assert alone["meta"] == (2, 4, 3, 3)


def test_a_group_of_one_is_plain_batch_norm(found):
    x, y, state = found("alone")[0]["group of one"]
    layer = BatchNorm2d(4)
    assert torch.equal(layer(x), y)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_copies(found):
    for rank, copies in enumerate(found("copies")):
        assert copies["pickled"]
        if rank < 2:
            assert copies["same group"]
            assert copies["same output"]
            assert copies["own tensors"]
            assert copies[SyncBatchNorm] == copies[nn.SyncBatchNorm]  # "cannot pickle 'torch._C. …"


DISAGREEMENTS = {
    "channels": "SyncBatchNorm at '1' run with 4 channels in float32, differentiated on process 0, with "
    "5 channels in float32, differentiated on process 2; expected the same on all 3 processes of its group",
    "many channels": "run with 1100 channels in float32, differentiated on process 0, with 1101 channels",
    "dtype": "3 channels in bfloat16, differentiated on process 1",
    "wide dtype": "3 channels in float64, differentiated on process 1",
    "gradients": "not differentiated on process 0, with 3 channels in float32, differentiated on process 1",
    "one value": "whose mask or whose processes leave 1 of the values of a channel; expected at least two",
    "no values": "leave 0 of the values of a channel; expected at least two",
    "all masked": "leave 0 of the values of a channel; expected at least two",
}
REFUSALS = {
    "refused": (1, "SyncBatchNorm, built for 3 channels, given an input of shape (2, 5, 4)"),
    "integers": (2, "SyncBatchNorm given a tensor of torch.int64"),
    "mask": (0, "SyncBatchNorm given a mask of shape (3,)"),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_every_process_is_told_of_disagreements(found, case):
    for result in found("disagreements"):
        assert DISAGREEMENTS[case] in result[case]


@pytest.mark.parametrize("case", REFUSALS)
def test_every_process_is_told_of_bad_input_on_one(found, case):
    culprit, message = REFUSALS[case]
    for rank, result in enumerate(found("disagreements")):
        told = f"SyncBatchNorm: process {culprit} of 3 refused its input; expected inputs that every process"
        assert result[case].startswith(message if rank == culprit else told)


def test_after_errors_the_processes_are_in_step_and_nothing_has_moved(found):
    for rank, result in enumerate(found("disagreements")):
        assert result["unmoved"] == 0
        expected = (rank - 1) / (2 / 3 + 1e-5) ** 0.5
        torch.testing.assert_close(result["in step"], torch.full((2, 3), expected))


def test_a_process_that_is_not_a_member_is_told(found):
    message = found("disagreements")[2]["not a member"]
    assert message.startswith(
        "SyncBatchNorm with a process group that this process isn't a member of; expected"
    )


def test_values_that_are_not_finite_move_no_averages_anywhere(found):
    for warned, state, wrong in found("not_finite"):
        assert warned == ["NotFiniteWarning"]
        assert wrong == [False, True, False]
        assert state["num_batches_tracked"] == 0
        assert torch.equal(state["running_var"], torch.ones(3))


def names_the_layer_that_waits(message):
    assert message.startswith("SyncBatchNorm couldn't exchange its statistics between processes (")
    assert "expected all 3 processes of its group to run it in training mode" in message


def test_processes_are_told_when_one_is_lost(found):
    for message in found("a_lost_process")[:2]:
        names_the_layer_that_waits(message)


@pytest.fixture(scope="module")
def slowly(tmp_path_factory):
    return found_by(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "absent"), [("a_process_in_eval_mode", 2), ("a_process_without_backward", 0)]
)
def test_processes_that_wait_in_vain_are_told_after_the_timeout(slowly, scenario, absent):
    for rank, findings in enumerate(slowly):
        assert "failed" not in findings, findings["failed"]
        if rank == absent:
            assert findings[scenario] is None
        else:
            names_the_layer_that_waits(findings[scenario])


@pytest.mark.slow
def test_compiled_networks_exchange_between_their_graphs(slowly):
    grads, state, dx = in_one_process(3)
    assert all("compiled" in findings for findings in slowly), [findings.get("failed") for findings in slowly]
    results = [findings["compiled"] for findings in slowly]
    for name, expected in grads.items():
        summed = sum(result["gradients"][name] for result in results)
        torch.testing.assert_close(summed / 3, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.cat([result["gradients"]["x"] for result in results]) / 3, dx)
    for result in results:
        agree(result["state"], state)
        torch.testing.assert_close(*result["eval"])


# Without processes.

OPTIONS = [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"eps": 0.1}]


def randomised(layer):
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return layer


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2), (2, 3, 2, 3, 4)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_stands_in_for_torch_without_processes(shape, options):
    """In float64 PyTorch's layer is right; the test-time output is the same, bit for bit, in float32."""
    theirs = randomised(nn.SyncBatchNorm(3, **options)).double()
    ours = SyncBatchNorm(3, **options).double()
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    for _ in range(2):
        x = torch.randn(shape, dtype=torch.float64)
        assert torch.allclose(ours(x), theirs(x), atol=1e-12)
    states = ours.state_dict(), theirs.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-12) for key in states[0])
    assert states[0]._metadata == states[1]._metadata
    theirs.load_state_dict(states[0])
    assert repr(ours) == repr(theirs)
    assert {key for key in vars(theirs) if key[0] != "_"} == {key for key in vars(ours) if key[0] != "_"}
    if ours.track_running_stats:
        ours, theirs, x = ours.float().eval(), theirs.float().eval(), torch.randn(shape)
        assert torch.equal(ours(x), theirs(x))


def test_torch_arguments_by_position():
    positional = (3, 1e-3, 0.2, True, True, None, "cpu", torch.float64)
    assert repr(SyncBatchNorm(*positional)) == repr(nn.SyncBatchNorm(*positional))
    assert SyncBatchNorm(*positional).weight.dtype == torch.float64
    assert SyncBatchNorm(3, bias=False).bias is None
    assert "warm_start=True" in repr(SyncBatchNorm(3, warm_start=True))


def test_half_precision_keeps_wide_averages():
    layer = SyncBatchNorm(3).bfloat16()
    assert layer.running_var.dtype == torch.float32
    assert layer(torch.randn(4, 3, 2, 2).bfloat16()).dtype == torch.bfloat16


def test_one_process_is_plain_batch_norm_with_its_errors():
    layer, plain, x = SyncBatchNorm(3), BatchNorm1d(3), torch.randn(5, 3, 4)
    mask = torch.rand(5, 4) < 0.5
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer(x, mask), plain(x, mask))
    assert torch.equal(layer.running_var, plain.running_var)
    assert layer(torch.empty(0, 3, 4)).shape == (0, 3, 4)
    with pytest.raises(
        ConvscopeError, match=r"shape \(1, 3\), one value for each channel; expected at least"
    ):
        layer(torch.ones(1, 3))
    with pytest.raises(
        ConvscopeError, match=r"input of shape \(3,\); expected shape \(N, C\) or \(N, C, …\)"
    ):
        layer(torch.ones(3))
    with pytest.raises(ConvscopeError, match=r"built for 3 channels, given an input of shape \(2, 4, 3\)"):
        layer(torch.ones(2, 4, 3))
    with pytest.raises(ConvscopeError, match=r"SyncBatchNorm given a mask that is False everywhere"):
        layer(x, torch.zeros(5, 4, dtype=torch.bool))


def test_copies_and_pickles_without_processes():
    layer = randomised(SyncBatchNorm(3, warm_start=True))
    layer.register_forward_hook(print)
    for twin in (copy.deepcopy(layer), copy.copy(layer)):
        assert twin.warm_start
        assert twin._forward_hooks.keys() == layer._forward_hooks.keys()
    layer._forward_hooks.clear()
    again = pickle.loads(pickle.dumps(layer))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in layer.state_dict().items())
    shared = copy.deepcopy(nn.ModuleList([layer, layer]))
    assert shared[0] is shared[1]
    assert shared[0] is not layer


def test_simulated_tensors():
    with FakeTensorMode():
        x = torch.randn(4, 3, 5, 2).requires_grad_()
        y = SyncBatchNorm(3)(x)
        y.sum().backward()
    assert x.grad.shape == y.shape == (4, 3, 5, 2)
