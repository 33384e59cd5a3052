"""Ways to run backward: of higher order, twice, in part, in accumulation, with others' hooks, in threads."""

import copy
import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import convscope as cs
from norm.lean.measured import assert_same_bits, saved_bytes, step


class Blocks(nn.Module):
    """A stem, two residual blocks of one stage and a head."""

    def __init__(self, width=4, activation=F.relu, checkpointed=False):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.head = nn.Linear(width, 3)
        self.activation, self.checkpointed = activation, checkpointed

    def block(self, x, number):
        return self.activation(self.norms[number](self.convs[number](x)) + x)

    def forward(self, x):
        x = self.activation(self.norms[0](self.convs[0](self.stem(x))))
        for number in (1, 2):
            run = checkpoint if self.checkpointed and number == 1 else None
            x = run(self.block, x, number, use_reentrant=False) if run else self.block(x, number)
        return self.head(x.mean((2, 3)))


def _pair(**changes):
    torch.manual_seed(1)
    net = Blocks(**changes)
    return copy.deepcopy(net), net


def _images(dtype=torch.float32):
    torch.manual_seed(2)
    return torch.randn(3, 2, 5, 4, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("activation", [F.silu, F.softplus])
def test_gradients_are_numerically_right_to_the_second_order(activation):
    net = _pair(activation=activation)[1].double()
    for norm in net.norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    cs.norm.lean(net)
    x = _images(torch.float64)[:2, :, :3, :3].detach().requires_grad_()
    assert torch.autograd.gradcheck(net, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(net, x, fast_mode=True)


@pytest.mark.parametrize("activation", [F.relu, F.silu, lambda x: F.relu6(x, inplace=True)])
def test_a_gradient_penalty_has_the_same_bits(activation):
    def penalised(net):
        x = _images()
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        return [slope.detach(), *(parameter.grad for parameter in net.parameters())]

    plain, lean = _pair(activation=activation)
    cs.norm.lean(lean)
    assert_same_bits(penalised(lean), penalised(plain))


def test_a_retained_graph_gives_the_same_bits_each_time():
    def thrice(net):
        out = net(_images()).square().sum()
        for times_left in (2, 1, 0):
            out.backward(retain_graph=times_left > 0)
        return [parameter.grad for parameter in net.parameters()]

    plain, lean = _pair()
    cs.norm.lean(lean)
    assert_same_bits(thrice(lean), thrice(plain))


def test_forward_passes_that_wait_for_their_backward_pass_dont_mix():
    def accumulated(net):
        losses = [net(_images() * scale).square().sum() for scale in (1, 2, 3)]
        for loss in (losses[1], losses[2], losses[0]):
            loss.backward()
        return [parameter.grad for parameter in net.parameters()]

    plain, lean = _pair()
    cs.norm.lean(lean)
    assert_same_bits(accumulated(lean), accumulated(plain))


def test_one_output_of_two_may_stay_without_a_gradient():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Blocks(), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            x = self.body.block(F.relu(self.body.norms[0](self.body.stem(x))), 1)
            return self.head(x), self.body.head(x.mean((2, 3)))

    def first(net):
        net(_images())[0].sum().backward()
        return [parameter.grad for parameter in net.parameters()]

    torch.manual_seed(1)
    plain = Two()
    lean = copy.deepcopy(plain)
    cs.norm.lean(lean)
    assert_same_bits(first(lean), first(plain))


@pytest.mark.parametrize("is_reentrant", [True, False])
def test_checkpointed_all_of_it(is_reentrant):
    def checkpointed(net):
        x = _images()
        checkpoint(net, x, use_reentrant=is_reentrant).square().sum().backward()
        return [x.grad, *(parameter.grad for parameter in net.parameters()), *net.buffers()]

    plain, lean = _pair()
    handle = cs.norm.lean(lean)
    assert_same_bits(checkpointed(lean), checkpointed(plain))
    assert handle.savings is None


def test_checkpointed_in_part():
    plain, lean = _pair(checkpointed=True)
    handle = cs.norm.lean(lean)
    assert_same_bits(step(lean, _images()), step(plain, _images()))
    assert handle.savings.bytes_kept < handle.savings.bytes_without < saved_bytes(_pair()[0], _images())


def test_others_hooks_get_what_is_kept():
    plain, lean = _pair()
    handle, packed, unpacked = cs.norm.lean(lean), [], []
    standing = {tensor.untyped_storage()._cdata for tensor in (*lean.parameters(), *lean.buffers())}

    def pack(tensor):
        packed.append(tensor)
        return len(packed) - 1, tensor.clone()

    def unpack(what):
        unpacked.append(what[0])
        return what[1]

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        found = step(lean, _images())
    assert_same_bits(found, step(plain, _images()))
    assert set(unpacked) == set(range(len(packed)))
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in packed}
    kept = sum(storage.nbytes() for key, storage in storages.items() if key not in standing)
    after_forward = 3 * 4 * 2 + 3 * 4 * 4  # what step itself computes with the outputs
    copies = handle.savings.bytes_kept - (kept - after_forward)
    assert 0 <= copies <= 3 * 4 * 4 * 4


def test_everything_is_freed_without_the_garbage_collector():
    lean = _pair()[1]
    cs.norm.lean(lean)
    gc.collect()
    gc.disable()
    try:
        storages = []
        hook = lean.convs[1].register_forward_hook(
            lambda _, args, out: storages.extend(
                weakref.ref(each.untyped_storage()) for each in (args[0], out)
            )
        )
        out = lean(_images()).sum()
        hook.remove()
        assert [reference() is None for reference in storages] == [True, False]
        out.backward()
        del out
        assert [reference() is None for reference in storages] == [True, True]
    finally:
        gc.enable()


def test_threads_have_their_own_forward_passes():
    plain, lean = _pair()
    cs.norm.lean(lean)
    nets = [copy.deepcopy(lean) for _ in range(4)]
    found = [None] * len(nets)

    def run(number):
        x = _images()
        nets[number](x).square().sum().backward()
        found[number] = [x.grad, *(parameter.grad for parameter in nets[number].parameters())]

    x = _images()
    plain(x).square().sum().backward()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(nets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        assert_same_bits(each, [x.grad, *(parameter.grad for parameter in plain.parameters())])


def test_hooks_on_outputs_see_and_change_the_same_gradients():
    def hooked(net):
        seen = []

        def double(gradient):
            seen.append(gradient.clone())
            return gradient * 2

        def watch(_module, _args, out):
            out.register_hook(double)
            out.retain_grad()
            seen.append(out)

        hooks = [net.norms[number].register_forward_hook(watch) for number in (0, 2)]
        hooks.append(
            net.convs[1].register_full_backward_hook(lambda _, into, out: seen.extend((*into, *out)))
        )
        net(_images()).square().sum().backward()
        for hook in hooks:
            hook.remove()
        kept = [tensor.grad for tensor in seen if not tensor.is_leaf and tensor.retains_grad]
        assert len(kept) == 2
        assert len(seen) == 6
        return [*seen, *kept, *(parameter.grad for parameter in net.parameters())]

    plain, lean = _pair(activation=F.silu)
    cs.norm.lean(lean)
    assert_same_bits(hooked(lean), hooked(plain))
