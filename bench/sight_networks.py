"""The networks on which projections are compared: one a family, of timm and torchvision, small images.

``tv/`` is torchvision's, the others are timm's. All are untrained, in float64, their batch norms filled by
``bench.fold_statistics``. Of each, one unit is projected: the one that fires most of a convolution or batch
norm three quarters of the way up, where maps still have more than one position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.fold_networks import untrained
from bench.fold_statistics import randomise

# Name: pixels.
NETWORKS = {
    "tv/alexnet": 96, "tv/convnext_tiny": 64, "tv/densenet121": 64, "tv/efficientnet_b0": 64,
    "tv/googlenet": 64, "tv/inception_v3": 96, "tv/mnasnet0_5": 64, "tv/mobilenet_v2": 64,
    "tv/mobilenet_v3_small": 64, "tv/regnet_y_400mf": 64, "tv/resnet18": 64, "tv/shufflenet_v2_x0_5": 64,
    "tv/squeezenet1_1": 64, "tv/vgg11_bn": 64, "convnext_atto": 64, "convnextv2_atto": 64,
    "cs3darknet_focus_s": 64, "cspresnet50": 64, "dla46_c": 64, "dpn48b": 64, "eca_nfnet_l0": 64,
    "ecaresnet26t": 64, "edgenext_xx_small": 64, "efficientnet_lite0": 64, "efficientvit_b0": 64,
    "ese_vovnet19b_slim": 64, "fasternet_t0": 64, "fastvit_t8": 64, "gcresnet33ts": 64, "gernet_s": 64,
    "ghostnet_050": 64, "hardcorenas_a": 64, "hgnetv2_b0": 64, "hrnet_w18_small": 64,
    "inception_next_atto": 64, "lambda_resnet26t": 64, "lcnet_035": 64, "legacy_seresnet18": 64,
    "legacy_xception": 64, "mambaout_femto": 64, "mixnet_s": 64, "mobilenetv4_conv_small_035": 64,
    "mobilevit_xxs": 64, "nf_resnet26": 64, "poolformer_s12": 64, "regnetx_002": 64, "regnety_002": 64,
    "regnetz_005": 64, "repvgg_a0": 64, "repvit_m0_9": 64, "res2net50_14w_8s": 64, "resnest14d": 64,
    "resnetblur18": 64, "resnetv2_18": 64, "resnetv2_50x1_bit": 64, "rexnet_100": 64, "skresnet18": 64,
    "starnet_s050": 64, "test_maxvit": 160, "tf_efficientnet_b0": 64, "tresnet_m": 64, "visformer_tiny": 224,
    "xception41p": 64,
}  # fmt: skip
DEPTH = 0.75


@dataclass(frozen=True)
class Spot:
    """One unit at one position of a layer.

    Attributes:
        layer: a module's path.
        unit: a channel.
        position: (y, x) in its map.
    """

    layer: str
    unit: int
    position: tuple[int, int]


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode and an image, both in float64; the same numbers at every call."""
    torch.manual_seed(0)
    network, size = untrained(name), NETWORKS[name]
    if name == "tv/vgg11_bn":
        network.classifier = nn.Identity()  # 0.9 GiB above all that is looked at
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))
    _vary(network)
    randomise(network, images[1:])
    return network.double().eval(), images[0].double()


def _vary(network: nn.Module) -> None:
    """Draw what is constant: fresh layer scales of 1e-6 and gains of 0 would hide the branches behind."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if bool((parameter == parameter.flatten()[0]).all()):
                numbers = torch.rand(parameter.shape, generator=generator)
                parameter.copy_(0.4 * numbers - 0.2 if name.endswith("bias") else 0.4 + 0.8 * numbers)


def spot(network: nn.Module, image: Tensor, depth: float = DEPTH) -> Spot:
    """Return the unit to look at.

    Args:
        network: in evaluation mode.
        image: (channels, height, width).
        depth: 0 for the first layer, 1 for the last.
    """
    maps: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.dim() == 4 and min(output.shape[2:]) > 1 and path not in maps:
                maps[path] = output[0].detach().clone()

        return hook

    kinds = (nn.Conv2d, nn.modules.batchnorm._BatchNorm)
    hooks = [
        module.register_forward_hook(keep(path))
        for path, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(image[None])
    for hook in hooks:
        hook.remove()
    layer = list(maps)[int(depth * (len(maps) - 1))]
    unit = int(maps[layer].amax((1, 2)).argmax())
    y, x = divmod(int(maps[layer][unit].argmax()), maps[layer].shape[2])
    return Spot(layer, unit, (y, x))
