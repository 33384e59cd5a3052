"""Values that are written to in place, looked at by hooks, or kept by the network for later."""

import torch
import torch.nn.functional as F
from torch import nn

from fold.micro.case import ANY, FOLDED, KEPT, SCALE, Micro, Net

IMAGE = (2, 3, 9, 7)


def net(forward, **options):
    """Return a maker of a network with a convolution and a batch norm."""
    return lambda: Net(forward, conv=nn.Conv2d(3, 5, 3), bn=nn.BatchNorm2d(5), **options)


def written_after_reading(s, x):
    y = s.conv(x)
    z = s.bn(y)
    y.add_(1)
    return z.relu() + y


def written_through_view(s, x):
    y = s.conv(x)
    y[:, :2].mul_(3)
    return s.bn(y)


def written_rows(s, x):
    y = s.conv(x)
    y[:, :, ::2] += 1
    return s.bn(y)


def written_after_norm(s, x):
    y = s.bn(s.conv(x))
    y[:, 1:3] = y[:, 1:3].relu()
    return y


def overwritten(s, x):
    y = torch.empty(x.shape[0], 5, x.shape[2] - 2, x.shape[3] - 2, dtype=x.dtype)
    y.copy_(s.conv(x))
    return s.bn(y)


def kept_as_attribute(s, x):
    s.seen = s.conv(x)
    return s.bn(s.seen)


def added_in_place(s, x):
    y = s.bn(s.conv(x))
    y += s.other(x)
    return F.relu_(y)


def stream_in_place(s, x):
    y = s.other(x)
    y += s.conv(x)
    return s.bn(y)


def hook_on(name):
    """Return what gives a module a hook that looks at its output."""

    def look(module, inputs, output):
        output.amax()

    def prepare(made):
        made.get_submodule(name).register_forward_hook(look)

    return prepare


def doubled(module, inputs, output):
    return output * 2


def in_sequence(*middle):
    return lambda: nn.Sequential(nn.Conv2d(3, 5, 3), *(make() for make in middle))


def other():
    return nn.Conv2d(3, 5, 3, bias=False)


def norm():
    return nn.BatchNorm2d(5)


CASES = (
    Micro("relu_in_place_after", in_sequence(norm, lambda: nn.ReLU(inplace=True)), IMAGE, FOLDED),
    Micro("relu_in_place_before", in_sequence(lambda: nn.ReLU(inplace=True), norm), IMAGE, SCALE),
    Micro("mul_in_place_before", net(lambda s, x: s.bn(s.conv(x).mul_(2.5))), IMAGE, FOLDED),
    Micro("mul_in_place_after", net(lambda s, x: s.bn(s.conv(x)).mul_(2.5).add_(1)), IMAGE, FOLDED),
    Micro("add_in_place_before", net(lambda s, x: s.bn(s.conv(x).add_(1.5))), IMAGE, FOLDED),
    Micro("sub_and_div_before", net(lambda s, x: s.bn((1.5 - s.conv(x)) / -4)), IMAGE, FOLDED),
    Micro("neg_before", net(lambda s, x: s.bn(-s.conv(x))), IMAGE, FOLDED),
    Micro("written_after_reading", net(written_after_reading), IMAGE, KEPT),
    Micro("written_through_a_view_of_channels", net(written_through_view), IMAGE, ANY),
    Micro("written_through_a_view_of_rows", net(written_rows), IMAGE, ANY),
    Micro("written_through_a_view_after", net(written_after_norm), IMAGE, FOLDED),
    Micro("copied_into_a_new_tensor", net(overwritten), IMAGE, ANY),
    Micro("residual_added_in_place_after", lambda: net(added_in_place, other=other())(), IMAGE, FOLDED),
    Micro("residual_added_in_place_before", lambda: net(stream_in_place, other=other())(), IMAGE, FOLDED),
    Micro("hook_on_the_batch_norm", in_sequence(norm), IMAGE, KEPT, prepare=hook_on("1")),
    Micro("hook_on_the_convolution", in_sequence(norm), IMAGE, KEPT, prepare=hook_on("0")),
    Micro("hook_on_what_follows", in_sequence(norm, nn.ReLU), IMAGE, FOLDED, prepare=hook_on("2")),
    Micro("hook_on_the_network", in_sequence(norm), IMAGE, FOLDED, prepare=hook_on("")),
    Micro(  # the hook's doubling is part of what the network computes
        "hook_that_changes_the_convolution",
        in_sequence(norm),
        IMAGE,
        ANY,
        prepare=lambda made: made[0].register_forward_hook(doubled),
    ),
    Micro(
        "pre_hook_on_the_batch_norm",
        in_sequence(norm),
        IMAGE,
        KEPT,
        prepare=lambda made: made[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
    ),
)

OUTLIVES = Micro("value_kept_as_an_attribute", net(kept_as_attribute), IMAGE, KEPT)
"""Apart: after a run, the network holds a tensor that ``copy.deepcopy`` takes only without gradients."""
