"""Networks of many kinds: two other counters, and autograd's own saved tensors, agree with the table."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from convscope.cost import cost
from cost.independent_count import count
from zoo import DIVERSE, make_default, staged

# One of every kind of convolution, attention and recurrence; `make zoo` runs over the others, too.
BRIEF = [
    "timm:convit_tiny", "timm:focalnet_tiny_srf", "timm:halonet26t", "timm:lambda_resnet26t",
    "timm:levit_128s", "timm:mixnet_s", "timm:resnest14d", "timm:sequencer2d_s", "timm:swinv2_cr_tiny_224",
    "timm:tf_efficientnet_cc_b0_4e", "timm:tnt_s_patch16_224", "timm:volo_d1_224",
    "timm:xcit_nano_12_p16_224", "torchvision:lraspp_mobilenet_v3_large", "torchvision:raft_small",
    "torchvision:retinanet_resnet50_fpn", "torchvision:s3d",
]  # fmt: skip

# PyTorch 2.13's counter leaves groups out of the weight gradient and attention out of everything on CPU.
RIGHT_BACKWARD = ["resnet26", "densenet121", "inception_v3", "swin_tiny_patch4_window7_224"]
OTHERS = ["mobilenetv3_small_100", "efficientnet_b0", "resnext50_32x4d", "nfnet_l0", "convnext_atto"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reference", staged(DIVERSE, BRIEF))
def test_functions_and_autograds_graph_agree_with_the_table(reference):
    """``python -m bench.flops`` does the same for hundreds of networks."""
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    net, shapes = make_default(reference)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    with FlopCounterMode(display=False) as pytorch:
        other = count(net, *inputs)
    found = cost(net, shapes if len(shapes) > 1 else shapes[0])
    assert other.unknown == found.uncounted == ()
    assert 2 * other.forward == found.totals.forward_flops == pytorch.get_total_flops()
    assert 2 * other.to_input == found.totals.backward_input_flops
    assert 2 * other.to_weight == found.totals.backward_weight_flops
    assert other.params == found.totals.params
    assert sum(row.macs for row in found.rows) == found.totals.macs


def _saved(net, x):
    standing = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in standing:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _ = F.cross_entropy(net(x), torch.zeros(len(x), dtype=torch.long))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RIGHT_BACKWARD + OTHERS)
def test_counters_agree(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, drop_rate=0.0).train()
    x = torch.randn(2, *net.default_cfg["input_size"])
    found = cost(net, x)
    with FlopCounterMode(display=False) as forward:
        out = net(x)
    assert found.totals.forward_flops == forward.get_total_flops()
    if name in RIGHT_BACKWARD:
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
        assert found.totals.backward_flops == backward.get_total_flops()
    assert found.totals.params == sum(parameter.numel() for parameter in net.parameters())
    assert found.totals.saved_bytes == _saved(net, x)
    assert found.uncounted == ()
