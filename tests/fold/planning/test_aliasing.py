"""Writes in place that reach further where a batch norm hands its input on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.fold import FoldedBatchNorm, fold
from fold.nets import IMAGE, Functional


def net(forward, **more):
    return Functional(
        forward,
        stem=nn.Conv2d(3, 4, 1),
        bn=nn.BatchNorm2d(4),
        a=nn.Conv2d(4, 4, 1),
        b=nn.Conv2d(4, 4, 1),
        **more,
    )


def written_by_function(s, x):
    stream = s.stem(x)
    return stream + s.a(F.relu_(s.bn(stream)))


def written_by_module(s, x):
    stream = s.stem(x)
    return stream + s.a(s.act(s.bn(stream)))


def added_to_the_stream(s, x):
    stream = s.stem(x)
    normal = s.bn(stream)
    stream += s.a(F.relu(normal))
    return s.b(stream) + s.a(normal)


def stream_written_before_the_batch_norm_is_read(s, x):
    stream = s.stem(x)
    normal = s.bn(stream)
    stream.mul_(2)
    return s.b(normal) + s.a(stream)


def output_written_later(s, x):
    stream = s.stem(x)
    normal = s.bn(stream)
    result = s.b(stream)
    F.relu_(normal)
    return s.a(normal), result


def returned_as_it_was(s, x):
    stream = s.stem(x)
    return s.a(F.relu_(s.bn(stream))), s.b(stream), stream.shape[0] * torch.ones(1)


def through_a_view(s, x):
    stream = s.stem(x)
    normal = s.bn(stream)
    normal.flatten(2)[:, :, 3:].zero_()
    return s.a(normal) + s.b(stream)


def into_an_output(s, x):
    stream = s.stem(x)
    normal = s.bn(stream)
    with torch.no_grad():
        normal = normal.detach()
        torch.clamp(normal, min=0, out=normal)
    return s.a(normal) + s.b(stream)


def of_the_input(s, x):
    return s.b(F.relu_(s.norm(x))) + s.b(s.stem(x))


def two_in_a_row(s, x):
    stream = s.stem(x)
    return s.a(F.relu_(s.other(s.bn(stream)))) + s.b(stream)


WRITES = {
    "relu_ as a function": lambda: net(written_by_function),
    "relu_ as a module": lambda: net(written_by_module, act=nn.ReLU(inplace=True)),
    "leaky relu_ as a module": lambda: net(written_by_module, act=nn.LeakyReLU(0.1, inplace=True)),
    "add_ to the stream": lambda: net(added_to_the_stream),
    "mul_ of the stream": lambda: net(stream_written_before_the_batch_norm_is_read),
    "later": lambda: net(output_written_later),
    "returned": lambda: net(returned_as_it_was),
    "through a view": lambda: net(through_a_view),
    "out=": lambda: net(into_an_output),
    "of the network's input": lambda: Functional(
        of_the_input, stem=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3), b=nn.Conv2d(3, 4, 1)
    ),
    "two in a row": lambda: net(two_in_a_row, other=nn.BatchNorm2d(4)),
}


def positive(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.abs_()
    return model


@pytest.mark.parametrize("name", WRITES)
def test_no_write_reaches_what_is_read_later(name, randomised, relative_error):
    model = positive(randomised(WRITES[name]())).double()
    folded = fold(model, IMAGE)
    assert all("taken back" not in entry.reason for entry in folded.ledger.entries), "before it is tried"
    assert relative_error(model, folded.model, *IMAGE) < 1e-12
    x = torch.randn(IMAGE, dtype=torch.float64)
    before, again = x.clone(), x.clone()
    model(before)
    folded.model(again)
    assert torch.equal(before, again), "what is left in the input's memory"


@pytest.mark.parametrize("activation", [nn.ReLU, lambda inplace: nn.LeakyReLU(0.2, inplace)])
def test_a_module_that_writes_is_told_not_to(activation, randomised, relative_error):
    model = positive(randomised(WRITES["relu_ as a module"]())).double()
    model.act = activation(inplace=True)
    folded = fold(model, IMAGE)
    assert isinstance(folded.model.bn, FoldedBatchNorm)
    assert folded.model.act.inplace is False
    assert model.act.inplace is True
    assert relative_error(model, folded.model, *IMAGE) < 1e-12


def test_a_function_that_writes_keeps_its_batch_norm(randomised):
    model = positive(randomised(WRITES["relu_ as a function"]()))
    (entry,) = fold(model, IMAGE).ledger.entries
    assert entry.verdict == "kept"
    assert "self#1:relu_.1 writes in place to what it would hand on" in entry.reason


def test_a_write_that_nobody_sees_is_no_hindrance(randomised, relative_error):
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))).double()
    folded = fold(model, IMAGE)
    assert folded.ledger.folded == 1
    assert folded.model[2].inplace is True
    assert relative_error(model, folded.model, *IMAGE) < 1e-12


def test_a_module_shared_with_others_writes_nowhere_any_more(randomised, relative_error):
    """One activation at two places: only one of them must not write, but they are one module."""

    def forward(s, x):
        stream = s.act(s.other(s.stem(x)))
        return stream + s.a(s.act(s.bn(stream)))

    model = positive(randomised(net(forward, act=nn.ReLU(inplace=True), other=nn.BatchNorm2d(4)))).double()
    folded = fold(model, IMAGE)
    assert relative_error(model, folded.model, *IMAGE) < 1e-12
