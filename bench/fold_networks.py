"""The 90 networks with batch norm on which folding is measured: one a family, of timm and torchvision.

``tv/`` is a classifier of torchvision's, ``tvs/`` a segmentation and ``tvv/`` a video network; the others
are timm's. All are untrained, their batch norms filled by ``bench.fold_statistics``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.fold_statistics import randomise

# torchvision imports beside a PyTorch without its compiled operators once these two schemas exist.
try:
    _schemas = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _schemas.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
except RuntimeError:  # the tests have defined them, or torchvision has its own
    pass

BATCH = 2
FRAMES = 16
CALIBRATION = 4  # batches that the statistics come from

# Pixels; batch norms that run; of these, how many an exact fold without a new operator leaves if parallel
# branches aren't merged, by a reading of the exported graph that was made apart from this library.
_TABLE = {
    "botnet26t_256": (256, 31, 3), "coatnet_bn_0_rw_224": (224, 35, 10), "convmixer_768_32": (56, 65, 64),
    "cpubone_nano": (64, 19, 0), "cs3darknet_focus_s": (64, 31, 0), "cspresnet50": (64, 55, 0),
    "darknet17": (64, 16, 0), "densenet121": (64, 121, 62), "dla46_c": (64, 48, 0), "dpn48b": (64, 54, 21),
    "ecaresnet26t": (64, 31, 0), "efficientformer_l1": (224, 33, 0), "efficientformerv2_s0": (224, 75, 0),
    "efficientnet_lite0": (64, 49, 0), "efficientvim_m1": (224, 38, 0), "efficientvit_b0": (64, 26, 0),
    "efficientvit_m0": (224, 113, 0), "ese_vovnet19b_slim": (64, 19, 0), "fasternet_t0": (64, 17, 0),
    "fastvit_t8": (64, 70, 24), "fbnetc_100": (64, 65, 0), "gernet_s": (64, 45, 0),
    "ghostnet_050": (64, 80, 0), "ghostnetv3_050": (64, 326, 32), "halonet26t": (256, 31, 3),
    "hardcorenas_a": (64, 34, 0), "hgnetv2_b0": (64, 42, 0), "hrnet_w18_small": (64, 91, 0),
    "iformer_t": (64, 75, 0), "inception_v3": (96, 94, 0), "inception_v4": (96, 149, 0),
    "lambda_resnet26t": (64, 37, 9), "lcnet_035": (64, 27, 0), "lcnetv2_small": (64, 37, 0),
    "legacy_seresnet18": (64, 20, 0), "legacy_xception": (96, 40, 0), "levit_128s": (224, 52, 0),
    "levit_conv_128s": (224, 52, 0), "lowformer_b0": (64, 27, 0), "mixnet_s": (64, 49, 0),
    "mnasnet_small": (64, 46, 0), "mobilenetv1_100": (64, 27, 0), "mobilenetv2_035": (64, 52, 0),
    "mobilenetv3_small_050": (64, 34, 0), "mobilenetv4_conv_small_035": (64, 46, 0),
    "mobilenetv4_hybrid_medium_075": (128, 96, 4), "mobileone_s0": (64, 226, 35),
    "mobilevit_xxs": (64, 32, 0), "mobilevitv2_050": (64, 25, 0), "nasnetalarge": (96, 264, 0),
    "nextvit_small": (64, 61, 0), "pnasnet5large": (96, 201, 0), "regnetx_002": (64, 44, 0),
    "regnetz_005": (64, 65, 0), "repghostnet_050": (64, 112, 32), "repvgg_a0": (64, 61, 17),
    "repvit_m0_9": (64, 108, 23), "res2net50_14w_8s": (64, 149, 0), "resnest14d": (64, 23, 0),
    "resnet18": (64, 20, 0), "resnet50_clip": (224, 55, 0), "resnetblur18": (64, 20, 0),
    "resnetv2_18": (64, 17, 9), "resnetv2_50d": (64, 51, 17), "rexnet_100": (64, 62, 0),
    "selecsls42b": (64, 41, 0), "shvit_s1": (64, 74, 0), "skresnet18": (64, 36, 0),
    "starnet_s050": (64, 18, 0), "swiftformer_xs": (64, 26, 0), "test_maxvit": (160, 13, 0),
    "tf_efficientnet_b0": (64, 49, 0), "tiny_vit_5m_224": (224, 27, 0), "tinynet_e": (64, 31, 0),
    "tresnet_m": (64, 60, 0), "tv/densenet121": (64, 121, 62), "tv/googlenet": (64, 57, 0),
    "tv/mobilenet_v3_small": (64, 34, 0), "tv/shufflenet_v2_x0_5": (64, 56, 0),
    "tvs/deeplabv3_mobilenet_v3_large": (64, 53, 0), "tvs/lraspp_mobilenet_v3_large": (64, 47, 0),
    "tvv/r2plus1d_18": (32, 37, 0), "tvv/r3d_18": (32, 20, 0), "tvv/s3d": (224, 77, 0),
    "vgg11_bn": (64, 8, 0), "visformer_tiny": (224, 28, 0), "volo_d1_224": (224, 3, 0),
    "xception41": (96, 84, 0), "xception41p": (96, 40, 8), "xcit_nano_12_p16_224": (224, 16, 12),
}  # fmt: skip

# Of those left, how many go with a branch that is merged into its sibling, or through a split (LambdaNet).
_MERGED = {
    "fastvit_t8": 24, "ghostnetv3_050": 32, "lambda_resnet26t": 6, "mobileone_s0": 35, "repghostnet_050": 32,
    "repvgg_a0": 17, "repvit_m0_9": 23,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """One network of the measurement.

    Attributes:
        name: its name, with the prefix that says where it comes from.
        size: height and width of the input in pixels.
        batch_norms: how many run in a forward pass.
        floor: how many of them the reference leaves without merging branches.
    """

    name: str
    size: int
    batch_norms: int
    floor: int

    @property
    def floor_merged(self) -> int:
        """How many it leaves if parallel branches are merged."""
        return self.floor - _MERGED.get(self.name, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input: (N, C, H, W), or (N, C, T, H, W) for video."""
        frames = (FRAMES,) if self.name.startswith("tvv/") else ()
        return (BATCH, 3, *frames, self.size, self.size)

    def build(self) -> nn.Module:
        """Return the network in evaluation mode, in float32; the same numbers at every call."""
        torch.manual_seed(0)
        network = untrained(self.name)
        randomise(network, torch.cat([self.inputs(seed) for seed in range(100, 100 + CALIBRATION)]))
        return network.eval()

    def inputs(self, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a batch of standard normal numbers."""
        numbers = torch.randn(self.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return numbers.to(dtype)


def untrained(name: str, **arguments: object) -> nn.Module:
    """Return a network by its name here, with fresh weights, in training mode.

    Args:
        name: with the prefix that says where it comes from.
        **arguments: for its constructor.
    """
    library, _, model = name.rpartition("/")
    if not library:
        import timm

        return timm.create_model(model, pretrained=False, **arguments)
    import torchvision

    options: dict[str, object] = {"weights": None, **arguments}
    if library == "tvs":
        options["weights_backbone"] = None
    if model == "googlenet":
        options["init_weights"] = False
    return torchvision.models.get_model(model, **options)


NETWORKS = {name: Network(name, *numbers) for name, numbers in _TABLE.items()}
