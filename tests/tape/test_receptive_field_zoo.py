"""Receptive fields in networks of timm and torchvision against where gradients really reach.

The oracle: positive filters in float64, activations and norms over channels left out, averages for maxima
(all seen as the calls that the networks' own code makes). Then nothing can cancel, and the gradient of one
position is positive exactly at the pixels that it depends on.
"""

import pytest
import torch
import torch.nn.functional as F
from bench.fold_networks import untrained
from torch import nn
from torch.overrides import TorchFunctionMode

from convscope.tape import record
from convscope.tape.receptive_field import receptive_fields
from zoo import staged

# Name: pixels; odd, so that strides and paddings differ at both ends.
NETWORKS = {
    "tv/alexnet": 223, "tv/convnext_tiny": 95, "tv/densenet121": 127,
    "tv/googlenet": 191, "tv/inception_v3": 223, "tv/mnasnet0_5": 127, "tv/mobilenet_v2": 127,
    "tv/regnet_y_400mf": 95, "tv/resnet18": 159, "tv/shufflenet_v2_x0_5": 159,
    "tv/squeezenet1_1": 159, "dla46_c": 128, "efficientnet_lite0": 127, "ese_vovnet19b_slim": 127,
    "fasternet_t0": 159, "gernet_s": 127, "ghostnet_050": 127, "hgnetv2_b0": 127, "hrnet_w18_small": 128,
    "inception_next_atto": 127, "regnetx_002": 159, "repvgg_a0": 127,
    "res2net50_14w_8s": 127, "resnetblur18": 127, "resnetv2_18": 127, "xception41p": 159,
}  # fmt: skip
BRIEF = [
    "tv/alexnet", "tv/googlenet", "tv/mobilenet_v2", "tv/shufflenet_v2_x0_5", "tv/squeezenet1_1",
    "ghostnet_050", "hgnetv2_b0", "resnetblur18",
]  # fmt: skip
ACTIVATIONS = {"relu", "relu6", "silu", "gelu", "hardswish", "hardtanh", "leaky_relu"}


class Straight(TorchFunctionMode):
    """Runs without activations, and with averages for maxima."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").rstrip("_")
        if name in ACTIVATIONS or (name == "layer_norm" and len(args[1]) == 1):  # over the channels
            return (args[0] if args else kwargs["input"]).clone()
        if name == "max_pool2d":
            given = dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args))
            given |= kwargs
            assert given.pop("dilation", 1) == 1
            given.pop("return_indices", None)
            return F.avg_pool2d(**given)
        return func(*args, **kwargs)


def _positive(name):
    torch.manual_seed(0)
    network = untrained(name).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.uniform_(0.5 / fan_in, 1.5 / fan_in)
        elif isinstance(module, nn.Linear):
            module.weight.data.uniform_(0.5 / module.in_features, 1.5 / module.in_features)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data.uniform_(0.5, 1.5)  # some begin at 0
    return network


def _outputs(network, image):
    """Maps of the convolutions, in the order in which they run."""
    found = {}

    def keep(path):
        return lambda _module, _inputs, output: found.setdefault(path, output)

    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(keep(path))
    with Straight():
        network(image)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", staged(NETWORKS, BRIEF))
def test_the_gradient_of_one_position_fills_its_window(name):
    network, size = _positive(name), (NETWORKS[name], NETWORKS[name] + 32)
    tape = record(network, (1, 3, *size))
    fields = receptive_fields(tape)
    image = torch.rand(1, 3, *size, dtype=torch.float64, requires_grad=True)
    maps = _outputs(network, image)
    inside = [
        path
        for path in maps
        if (field := fields.get(tape.find(f"{path}#1").outputs[0])) is not None
        and all(span < pixels for span, pixels in zip(field.size, size))
    ]
    assert len(inside) >= 4
    for path in (inside[len(inside) // 2], inside[-1]):
        field, map_ = fields[tape.find(f"{path}#1").outputs[0]], maps[path]
        place = [extent // 2 for extent in map_.shape[2:]]
        (gradient,) = torch.autograd.grad(map_[0, :, *place].sum(), image, retain_graph=True)
        assert (gradient >= 0).all()
        for axis, reached in enumerate(gradient[0].sum(0).nonzero(as_tuple=True)):
            start = field.offset[axis] + place[axis] * field.stride[axis]
            last = start + field.size[axis] - 1
            window = (max(start, 0), min(last, size[axis] - 1))
            assert (int(reached.min()), int(reached.max())) == window, (path, axis)
