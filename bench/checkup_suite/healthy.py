"""Healthy networks and deliberate uses, in which a check-up must find no error and no warning.

The networks are untrained ones of timm and torchvision, as small as their families come. What makes them
healthy: ``cs.norm.recalibrate`` has given every batch norm the statistics of 160 photographs, and a counter
as of 44 updates or more; and the check-up is made on 64 other photographs, in batches of 32. The 160 come as
one batch: behind layers that normalise by all of them, as they will at test time, one pass is exact. (In
batches of 32 it leaves residuals of up to 6 in networks whose layers put out next to nothing.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

import convscope as cs
from bench.checkup_suite.photographs import batches
from bench.checkup_suite.planted import Subject
from bench.fold_networks import untrained

BATCH = 32
_CALIBRATION, _CHECKED = 160, 64

# Names as in ``bench.fold_networks``; pixels where it isn't 48; arguments.
_SIZES = {
    "dla46_c": 64, "dla46x_c": 64, "efficientvit_m0": 64, "fastvit_t8": 64, "hrnet_w18_small": 64,
    "levit_128s": 64, "mobilevit_xxs": 64, "mobilevitv2_050": 64, "repvit_m0_9": 64, "shvit_s1": 64,
    "swiftformer_xs": 64, "tv/shufflenet_v2_x0_5": 64, "visformer_tiny": 64,
}  # fmt: skip
_ARGUMENTS: dict[str, dict[str, object]] = {
    "levit_128s": {"img_size": 64}, "visformer_tiny": {"img_size": 64}, "vgg11_bn": {"mlp_ratio": 0.125},
}  # fmt: skip
NETWORKS = (
    # ResNets and their relatives
    "resnet10t", "resnet18", "resnetblur18", "resnetv2_18", "legacy_seresnet18", "skresnet18", "resnext26ts",
    "ecaresnet26t", "resnest14d", "test_resnet", "tv/resnet18", "test_byobnet", "dla46_c",
    "dla46x_c", "hrnet_w18_small",
    # VGG, DenseNet, DarkNet, VoVNet, RegNet, RepVGG
    "vgg11_bn", "densenet121", "darknet17", "cs3darknet_focus_s", "ese_vovnet19b_slim", "hgnetv2_b0",
    "gernet_s", "regnetx_002", "regnety_002", "tv/regnet_y_400mf", "repvgg_a0",
    # made for phones
    "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035",
    "tv/mobilenet_v2", "tv/mobilenet_v3_small", "mnasnet_small", "semnasnet_075", "tv/mnasnet0_5",
    "fbnetc_100", "spnasnet_100", "hardcorenas_a", "lcnet_035", "lcnetv2_small", "tinynet_e", "mixnet_s",
    "ghostnet_050", "repghostnet_050", "rexnet_100", "efficientnet_lite0", "efficientnet_b0",
    "tf_efficientnet_lite0", "test_efficientnet", "tv/shufflenet_v2_x0_5", "starnet_s050", "fasternet_t0",
    # with attention
    "levit_128s", "visformer_tiny", "mobilevit_xxs", "mobilevitv2_050", "efficientvit_b0", "efficientvit_m0",
    "fastvit_t8", "repvit_m0_9", "shvit_s1", "swiftformer_xs",
)  # fmt: skip


@dataclass(frozen=True)
class Healthy:
    """Something without a fault.

    Attributes:
        name: of the network, or what it is that is done on purpose.
        make: makes the subject.
    """

    name: str
    make: Callable[[], Subject]

    def __str__(self) -> str:
        return self.name


def network(name: str, training: bool = True) -> Subject:
    """Return a network with mature statistics, and photographs that it hasn't seen.

    Args:
        name: of :data:`NETWORKS`.
        training: the mode that it is given in.
    """
    size = _SIZES.get(name, 48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = untrained(name, **_ARGUMENTS.get(name, {}))
    # An iterator is read once: no second pass, which would only prove what the check-up is to show.
    cs.norm.recalibrate(model, iter(batches(_CALIBRATION, _CALIBRATION, size, seed=1)))
    return Subject(model.train(training), batches(_CHECKED, BATCH, size, seed=2))


CASES = tuple(Healthy(name, partial(network, name)) for name in NETWORKS)
