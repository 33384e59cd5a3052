"""Loops that run a network in ways of their own: nothing of ours gets in their way, nothing false is said."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap
from torch.optim import SGD, Optimizer

import convscope as cs
from checkup.grown import images
from checkup.watching.loops import batch, found, setting, step
from convscope.checkup.watching import ledger as ledger_module
from convscope.checkup.watching import strays as strays_module
from convscope.checkup.watching import watch
from convscope.checkup.watching.ledger import Ledger
from convscope.core.errors import ConvscopeError


def batched(net):
    x = images(2).requires_grad_()
    outputs = net(x)
    numbers = outputs.numel()
    torch.autograd.grad(outputs, x, torch.eye(numbers).reshape(numbers, 2, 4), is_grads_batched=True)


def ensemble(net):
    parameters = {name: torch.stack([p, p]) for name, p in net.named_parameters()}
    buffers = {name: torch.stack([b, b]) for name, b in net.named_buffers()}
    vmap(lambda p, b: functional_call(net, (p, b), (images(4),)), randomness="different")(parameters, buffers)


def in_evaluation_mode(run):
    def there_and_back(net):
        net.eval()
        run(net)
        net.train()

    return there_and_back


TRANSFORMS = {
    "is_grads_batched": batched,
    "jacobian": lambda net: torch.autograd.functional.jacobian(net, images(2), vectorize=True),
    "jacrev": in_evaluation_mode(lambda net: torch.func.jacrev(net)(images(2))),
    "hessian": in_evaluation_mode(
        lambda net: torch.func.hessian(lambda x: net(x).sum())(images(1)[..., :7, :7])
    ),
    "vmap": ensemble,
    "vmap without gradients": torch.no_grad()(ensemble),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own Hessian uses it
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_and_batched_backward_passes(name):
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(6):
            TRANSFORMS[name](net) if log.run.num_steps == 3 else None
            step(net, optimizer)
    assert found(log) == set()
    assert log.run.num_steps == 6


def test_what_goes_wrong_in_the_ledger_stays_there(monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault of ours")

    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(2):
            step(net, optimizer)
        monkeypatch.setattr(Ledger, "layer_ends", broken)
        for _ in range(2):
            step(net, optimizer)
    reasons = [note.reason for note in log.checkup().unchecked if note.what == "training run"]
    assert reasons == ["watching ended at step 2: RuntimeError: a fault of ours"]


def test_networks_that_can_not_be_watched():
    with pytest.raises(ConvscopeError, match="lazy"), watch(nn.Sequential(nn.LazyBatchNorm2d())):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(ConvscopeError, match="TorchScript"), watch(scripted):
        pass


def test_second_derivatives_of_a_network_that_is_called_in_parts():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net = nn.ModuleDict({"encoder": encoder, "head": head})
    optimizer = SGD(net.parameters(), 0.01)

    def loop(x, of):
        for _ in range(3):
            slopes = torch.autograd.grad(head(encoder(x)).square().mean(), of, create_graph=True)
            optimizer.zero_grad()
            sum(slope.square().sum() for slope in slopes).backward()
            optimizer.step()

    x = nn.Conv2d(3, 3, 1)(images(8)).detach().requires_grad_()
    for inputs, of in ((images(8), list(net.parameters())), (x, list(net.parameters()))):
        with watch(net, optimizer) as log:  # slopes of parameters, as for synthetic images to be learnt
            loop(inputs, of)
        assert found(log) == set()
    with watch(net, optimizer) as log:
        loop(x, [x])
    assert found(log) == {"per-sample-gradients"}
    assert log.run.input_gradients == 3


def test_layers_that_are_handed_to_the_optimizer_are_unfrozen_on_purpose():
    net, _ = setting()
    optimizer = SGD(net.head.parameters(), 0.02)
    with watch(net, optimizer) as log:
        net.bn1.eval()
        for _ in range(4):
            step(net, optimizer)
        net.train()
        optimizer.add_param_group({"params": list(net.bn1.parameters())})
        for _ in range(4):
            step(net, optimizer)
    assert found(log) == set()


def test_accumulation_of_losses_with_two_inputs_and_no_gradient_at_the_last_bias():
    net, optimizer = setting()
    with watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.zero_grad()
            for _ in range(4):
                (net(images(2)) - net(images(2))).square().mean().backward()
            optimizer.step()
    assert log.run.patterns == {"FFBFFBFFBFFB": 11}
    assert (log.run.accumulated, found(log)) == (4, {"accumulated-batches"})


def test_outputs_may_be_saved(tmp_path):
    net, optimizer = setting()
    with watch(net, optimizer), warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(net(images(4)), tmp_path / "outputs.pt")


class Sharpness(Optimizer):
    """The shape of well-known wrappers: the loop calls other methods than ``step``."""

    def __init__(self, parameters, inner):
        super().__init__(parameters, {})
        self.base_optimizer = inner(self.param_groups)

    def second_step(self):
        self.base_optimizer.step()


def test_optimizers_around_others():
    net, _ = setting()
    optimizer = Sharpness(net.parameters(), lambda groups: SGD(groups, 0.01))
    with watch(net, optimizer) as log:
        for _ in range(3):
            F.cross_entropy(*(lambda x, y: (net(x), y))(*batch())).backward()
            optimizer.second_step()
            optimizer.zero_grad()
    assert log.run.num_steps == 3


def test_declarations_around_the_whole_loop_hold_for_its_check_up():
    net, optimizer = setting()
    with cs.expected("accumulated-batches"), watch(net, optimizer) as log:
        for _ in range(12):
            optimizer.zero_grad()
            for _ in range(2):
                F.cross_entropy(net(images(8)), torch.zeros(8, dtype=torch.long)).backward()
            optimizer.step()
    assert found(log) == set()
    assert [finding.fault for finding in log.checkup().expected] == ["accumulated-batches"]


def test_without_steps_nothing_piles_up(monkeypatch):
    for module in (ledger_module, strays_module):
        monkeypatch.setattr(module, "_MOST", 64)
    net, _ = setting()
    with watch(net) as log:
        for _ in range(300):
            net(images(2)).sum().backward()
    ledger = log.ledger
    assert len(ledger._by_batch) <= 64
    assert len(ledger._modes._by_batch) <= 64
    assert len(ledger._strays._candidates) <= 65
    assert len(ledger._sequence._letters) <= 600
    assert not ledger.sampled or ledger._passes % 10 == 0


class Odd(nn.BatchNorm2d):
    """A module that can't be hashed."""

    __hash__ = None

    def __eq__(self, other):
        return type(self) is type(other)


def test_layers_of_others_that_can_not_be_hashed():
    net, optimizer = setting()
    foreign = Odd(3)
    net.conv1.register_forward_pre_hook(lambda module, args: (foreign(args[0]),))
    with watch(net, optimizer) as log:
        for _ in range(3):
            step(net, optimizer)
    assert found(log) == set()
    assert [norm.path for norm in log.run.norms] == ["bn1", "bn2", "bn3"]


class Boxed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return type("Box", (), {"__init__": lambda box, value: setattr(box, "values", [value])})(self.norm(x))


def test_outputs_in_lists_of_objects():
    net = Boxed()
    optimizer = SGD(net.parameters(), 0.1)
    with watch(net, optimizer) as log:
        for _ in range(3):
            net(images(4)).values[0].square().mean().backward()
            optimizer.step()
    assert found(log) == set()
    assert log.run.patterns == {"FB": 3}
