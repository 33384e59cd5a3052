"""Batch norms as function calls, folded: the numbers, what still runs, and what the result can do."""

import copy
import io
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import fold
from convscope.tape import record
from fold.micro.oracle import Operators, operators_of
from fold.nets import IMAGE
from fold.norms.functional_nets import (
    BeforeReLU,
    Both,
    ByInstance,
    ByModules,
    Doubled,
    Matrix,
    Outer,
    WithoutBias,
    held_norm,
)

CASES = {
    "by_modules": (ByModules, IMAGE),
    "without_bias": (WithoutBias, IMAGE),
    "linear": (Matrix, (4, 3)),
    "outer": (Outer, IMAGE),
    "does_more": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), Doubled(5)), IMAGE),
    "both": (Both, IMAGE),
}


def done(name, randomised):
    make, shape = CASES[name]
    torch.manual_seed(3)
    net = randomised(make())
    return net, fold(net, shape), torch.randn(shape)


def close(given, expected):
    return (given - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.fixture(params=CASES)
def case(request, randomised):
    return done(request.param, randomised)


def test_folds_and_nothing_is_left_to_run(case, relative_error):
    net, folded, x = case
    assert {entry.verdict for entry in folded.ledger.entries} == {"folded"}
    assert relative_error(net, folded.model, *x.shape) < 1e-6
    names = operators_of(folded.model, x.shape, x.dtype).names
    before = operators_of(net, x.shape, x.dtype)
    assert [name for name in names if "batch_norm" in name] == []
    assert len(names) <= len(before.names) - len(before.batch_norms()), "nothing else took their place"
    assert "batch_norm" not in [call.op for call in record(folded.model, tuple(x.shape)).calls]


def test_exact_in_float64(randomised):
    net = randomised(WithoutBias()).double()
    folded = fold(net, IMAGE).model
    scale = net.weight / (net.running_var + 1e-5).sqrt()  # the definition, once more
    x = torch.randn(IMAGE, dtype=torch.float64)
    kernel = net.kernel * scale.view(-1, 1, 1, 1)
    expected = F.conv2d(x, kernel, net.bias - net.running_mean * scale, padding=1).relu()
    assert (folded(x) - expected).abs().max() < 1e-14
    torch.testing.assert_close(folded.kernel, kernel)


def test_is_still_the_users_class(case):
    net, folded, _ = case
    assert isinstance(folded.model, type(net))
    lends = isinstance(net, WithoutBias | Matrix)
    assert type(folded.model).__name__ == f"{'Folded' if lends else ''}{type(net).__name__}"
    assert set(folded.model.state_dict()) < set(net.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        folded.model.load_state_dict(net.state_dict())


def test_copies_and_pickles(case):
    _, folded, x = case
    expected = folded.model(x)
    file = io.BytesIO()
    torch.save(folded.model, file)
    file.seek(0)
    models = [copy.deepcopy(folded.model), pickle.loads(pickle.dumps(folded.model))]
    for model in (*models, torch.load(file, weights_only=False)):
        assert torch.equal(model(x), expected)
        assert operators_of(model, x.shape, x.dtype).batch_norms() == []
        assert torch.equal(folded.model(x), expected), "they share nothing"
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()


@pytest.mark.slow
def test_unpickles_in_a_fresh_process(randomised, tmp_path):
    _, folded, x = done("without_bias", randomised)
    torch.save((folded.model, x, folded.model(x)), tmp_path / "net.pt")
    code = (
        f"import torch; m, x, y = torch.load({str(tmp_path / 'net.pt')!r}, weights_only=False); "
        "assert torch.equal(m(x), y); print(type(m).__name__)"
    )
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path]), "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout == "FoldedWithoutBias\n", run.stderr


def test_state_dict_and_dtype(case):
    _, folded, x = case
    other = copy.deepcopy(folded.model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(folded.model.state_dict())
    assert torch.equal(other(x), folded.model(x))
    assert close(other.double()(x.double()), folded.model(x).double())


def test_trains(case):
    _, folded, x = case
    model = copy.deepcopy(folded.model).train()
    model(x).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == [], "parameters that no gradient reaches hold up distributed training"


@pytest.mark.parametrize("name", ["without_bias", "by_modules", "outer"])
@pytest.mark.parametrize("strict", [False, True])
def test_exports(name, strict, randomised):
    _, folded, x = done(name, randomised)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(folded.model, (x,), strict=strict)
    if not strict:  # which traces on simulated tensors, the running mean among them
        assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert close(torch.export.load(file).module()(x), folded.model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["without_bias", "by_modules", "outer", "does_more"])
def test_compiles(name, randomised):
    _, folded, x = done(name, randomised)
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(folded.model, backend=backend, fullgraph=True)
    assert torch.equal(compiled(x), folded.model(x))
    assert not [name for name in seen if "batch_norm" in name]


def test_scripts_and_traces(randomised):
    for name in ("without_bias", "by_modules"):
        net, folded, x = done(name, randomised)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scripted, traced = torch.jit.script(folded.model), torch.jit.trace(folded.model, (x,))
        assert close(scripted(x), net(x))
        assert close(traced(x), net(x))
        assert "batch_norm" not in str(traced.inlined_graph)


def test_other_methods_of_the_class_are_right(randomised):
    for name in ("without_bias", "by_modules"):
        net, folded, x = done(name, randomised)
        with Operators() as seen:
            y = folded.model.features(x)
        assert close(y, net.features(x))
        assert seen.batch_norms() == []


def test_a_checkpoint_in_the_middle(randomised):
    from torch.utils.checkpoint import checkpoint

    net = randomised(Odd(lambda s, y: checkpoint(lambda z: normalised(s, z).tanh(), y, use_reentrant=False)))
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    x = torch.randn(IMAGE)
    assert close(folded.model(x), net(x))
    folded.model(x).sum().backward()
    assert folded.model.conv.weight.grad.any()


def test_plain_layers_say_what_they_were(randomised):
    _, folded, _ = done("by_modules", randomised)
    assert repr(folded.model.bn).startswith("FoldedBatchNorm(was BatchNorm2d(5, ")
    assert [name for name, _ in folded.model.named_parameters()] == ["conv.weight", "conv.bias"]


def test_matrix_product_without_a_bias_keeps_an_addition(randomised, relative_error):
    net = randomised(Matrix(by_hand=True))
    folded = fold(net, (4, 3))
    assert relative_error(net, folded.model, 4, 3) < 1e-6
    assert operators_of(folded.model, (4, 3), torch.float32).batch_norms() == []


def test_instance_norm(randomised, relative_error):
    net = randomised(ByInstance())
    folded = fold(net, IMAGE)
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    assert relative_error(net, folded.model, 3, *IMAGE[1:]) < 1e-6
    assert operators_of(folded.model, IMAGE, torch.float32).batch_norms() == []


@pytest.mark.parametrize("affine", [True, False])
def test_scale_alone(affine, randomised, relative_error):
    net = randomised(BeforeReLU(affine))
    if affine:
        net.bn.weight.data.abs_()
    folded = fold(net, IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["partial"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    left = operators_of(folded.model, IMAGE, torch.float32).batch_norms()
    assert len(left) == (0 if affine else 1), "without a bias, the operator itself adds what is left"
    loaded = copy.deepcopy(folded.model)
    loaded.load_state_dict(folded.model.state_dict())
    x = torch.randn(IMAGE)
    assert torch.equal(loaded(x), folded.model(x))


def test_several_threads_at_once(randomised):
    _, folded, x = done("outer", randomised)
    expected, wrong = folded.model(x), []

    def run():
        wrong.extend(i for i in range(20) if not torch.equal(folded.model(x), expected))

    threads = [threading.Thread(target=run) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


class Odd(nn.Module):
    def __init__(self, forward, **others):
        super().__init__()
        self.conv, self._forward = nn.Conv2d(3, 5, 1), forward
        held_norm(self)
        for name, other in others.items():
            setattr(self, name, other)

    def forward(self, x):
        return self._forward(self, self.conv(x))


def normalised(s, y, **changes):
    given = {"weight": s.weight, "bias": s.bias, **changes}
    return F.batch_norm(y, s.running_mean, s.running_var, **given)


def read_elsewhere(s, y):
    return normalised(s, y) * s.weight.sum()


def two_eps(s, y):
    return normalised(s, y) + normalised(s, y, eps=0.1)


def computed(s, y):
    return normalised(s, y, weight=s.weight.square())


def a_part(s, y):
    return F.batch_norm(y, s.running_mean, s.running_var, torch.cat([s.weight[:2], s.weight[2:]]), s.bias)


def one_call_stays(s, y):
    z = normalised(s, y)
    return normalised(s, z.tanh())


STAY = {
    read_elsewhere: "its weight is also read by self#1:sum.1",
    two_eps: "but not as it does",
    computed: "its weight isn't a parameter or buffer, but computed",
    a_part: "its weight isn't a parameter or buffer, but computed",
    one_call_stays: "",
}


@pytest.mark.parametrize("forward", STAY, ids=lambda forward: forward.__name__)
def test_stays_with_a_reason(forward, randomised, relative_error):
    net = randomised(Odd(forward))
    folded = fold(net, IMAGE)
    assert {entry.verdict for entry in folded.ledger.entries} == {"kept"}
    assert all(STAY[forward] in entry.reason for entry in folded.ledger.entries)
    assert not any(entry.reason.startswith("taken back") for entry in folded.ledger.entries)
    assert relative_error(net, folded.model, *IMAGE) == 0
    assert type(folded.model) is Odd


def test_tensors_of_another_module(randomised, relative_error):
    class Block(nn.Module):
        def forward(self, y, norm):
            return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    net = randomised(Odd(lambda s, y: s.block(y, s), block=Block()))
    folded = fold(net, IMAGE)
    assert folded.ledger.entries[0].verdict == "folded"
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    assert operators_of(folded.model, IMAGE, torch.float32).batch_norms() == []


@pytest.mark.parametrize("copied", [torch.Tensor.detach, lambda mean: mean.to(torch.float64), torch.abs])
def test_a_copy_of_the_running_mean(copied, randomised, relative_error):
    def forward(s, y):
        return F.batch_norm(y, copied(s.running_mean), s.running_var, s.weight, s.bias)

    net = randomised(Odd(forward)).double()
    folded = fold(net, IMAGE)
    assert relative_error(net, folded.model, *IMAGE) < 1e-12
    assert folded.ledger.folded == (copied is not torch.abs)
    assert len(operators_of(folded.model, IMAGE, torch.float64).batch_norms()) == folded.ledger.kept


def test_called_as_a_module_and_a_function_with_a_rest(randomised, relative_error):
    class Mixed(Both):
        def forward(self, x):
            bn = self.bn
            y = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)
            return self.conv(y.relu()) * self.other(self.bn(x.flip(3)).relu())

    net = Mixed()
    net.bn = nn.BatchNorm2d(3)
    randomised(net).bn.weight.data.abs_()
    folded = fold(net, IMAGE)
    assert [entry.verdict for entry in folded.ledger.entries] == ["partial", "partial"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6
    assert operators_of(folded.model, IMAGE, torch.float32).batch_norms() == []
