"""Networks of timm and torchvision: hundreds chosen by rule; a fixed sample, one per family, made small."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

TIMM = {
    "botnet26t_256": 256, "coatnet_bn_0_rw_224": 224, "convmixer_768_32": 56, "convnext_atto": 64,
    "cspresnet50": 64, "densenet121": 64, "dpn48b": 64, "efficientformer_l1": 224, "efficientnet_lite0": 64,
    "efficientvit_b0": 64, "ese_vovnet19b_slim": 64, "fastvit_t8": 64, "gcresnet33ts": 64,
    "ghostnetv3_050": 64, "hrnet_w18_small": 64, "inception_v4": 96, "lambda_resnet26t": 64,
    "levit_128s": 224, "mixnet_s": 64, "mobilenetv3_small_050": 64, "mobileone_s0": 64, "mobilevit_xxs": 64,
    "nextvit_small": 64, "regnetx_002": 64, "repvgg_a0": 64, "repvit_m0_9": 64, "res2net50_14w_8s": 64,
    "resnetv2_50d": 64, "rexnet_100": 64, "skresnet18": 64, "swin_tiny_patch4_window7_224": 224,
    "test_maxvit": 160, "vgg11_bn": 64, "visformer_tiny": 224, "volo_d1_224": 224, "xception41p": 96,
}  # fmt: skip
TORCHVISION = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "googlenet": 64, "inception_v3": 299,
    "mobilenet_v3_small": 64, "resnet18": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "vit_b_16": 224,
}  # fmt: skip
SAMPLE = [f"timm:{name}" for name in TIMM] + [f"torchvision:{name}" for name in TORCHVISION]
# Together these have every operator of each phase of a training step, and every kind of convolution and of
# batch norm, that the sample has: tests/tape/test_zoo.py proves it. `make test-slow` runs over these.
BRIEF = [
    "timm:convmixer_768_32", "timm:convnext_atto", "timm:cspresnet50", "timm:dpn48b",
    "timm:efficientformer_l1", "timm:efficientnet_lite0", "timm:hrnet_w18_small", "timm:lambda_resnet26t",
    "timm:levit_128s", "timm:rexnet_100", "timm:skresnet18", "timm:swin_tiny_patch4_window7_224",
    "timm:volo_d1_224", "torchvision:alexnet", "torchvision:inception_v3", "torchvision:mobilenet_v3_small",
]  # fmt: skip
# What is unlike in their arithmetic: every kind of convolution, attention and recurrence.
DIVERSE = [
    "timm:coat_lite_tiny", "timm:convit_tiny", "timm:convnext_atto", "timm:crossvit_tiny_240",
    "timm:davit_tiny", "timm:edgenext_xx_small", "timm:focalnet_tiny_srf", "timm:gcvit_xxtiny",
    "timm:halonet26t", "timm:lambda_resnet26t", "timm:levit_128s", "timm:mixnet_s", "timm:mobilevitv2_050",
    "timm:mvitv2_tiny", "timm:resnest14d", "timm:sequencer2d_s", "timm:swinv2_cr_tiny_224",
    "timm:tf_efficientnet_cc_b0_4e", "timm:tnt_s_patch16_224", "timm:volo_d1_224",
    "timm:xcit_nano_12_p16_224", "torchvision:googlenet", "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:mvit_v2_s", "torchvision:raft_small", "torchvision:retinanet_resnet50_fpn",
    "torchvision:s3d", "torchvision:swin_v2_t",
]  # fmt: skip
BATCH = 2
PER_FILE = 4


def make(reference: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of the sample in training mode, and the shape of a batch of two."""
    library, _, name = reference.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False), (2, 3, TIMM[name], TIMM[name])
    import torchvision

    size = TORCHVISION[name]
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options), (2, 3, size, size)


def staged(references: Iterable[str], brief: Iterable[str]) -> list:
    """Parameters of a test: the brief ones in the stage `zoo`, the others in `make zoo`."""
    return [
        pytest.param(reference, marks=pytest.mark.zoo if reference in brief else pytest.mark.whole_zoo)
        for reference in references
    ]


def chosen_networks() -> list[str]:
    """The rule: all that torchvision lists, and of every model file of timm's up to four networks, the first
    and the last in the order of their names and those at equal distances between."""
    import timm
    import torchvision

    names = []
    for module in timm.list_modules():
        listed = timm.list_models(module=module)
        last, steps = len(listed) - 1, min(PER_FILE, len(listed)) - 1
        names += [f"timm:{listed[step * last // steps if steps else 0]}" for step in range(steps + 1)]
    return names + [f"torchvision:{name}" for name in torchvision.models.list_models()]


def make_default(reference: str, device: str = "meta") -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    """Any network in training mode, as its library builds it, and the shapes of its inputs: a batch of two of
    the size that it is made for. On the meta device it has no memory, and its weights no values."""
    try:
        with torch.device(device):
            net = _built(reference)
    except NotImplementedError:  # a constructor that reads numbers out of tensors
        net = _built(reference).to(device)
    library, _, name = reference.partition(":")
    shapes = (
        ((BATCH, *net.default_cfg["input_size"]),) if library == "timm" else _torchvision_inputs(name, net)
    )
    return net.train(), shapes


def _built(reference: str) -> nn.Module:
    library, _, name = reference.partition(":")
    if library == "torchvision":
        return _torchvision(name)
    import timm

    return timm.create_model(name, pretrained=False)


class DenseDetector(nn.Module):
    """What of a detector runs from images alone: backbone and dense head; no anchors, boxes or regions."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, images: torch.Tensor):
        features = self.backbone(images)
        return features, self.head(list(features.values()))


def _torchvision(name: str) -> nn.Module:
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    options: dict = {"weights": None}
    if any(kind in builder.__module__ for kind in ("segmentation", "detection")):
        options["weights_backbone"] = None
    if any(kind in name for kind in ("googlenet", "inception")):
        options["init_weights"] = False
    net = builder(**options)
    return DenseDetector(net) if "detection" in builder.__module__ else net


def _torchvision_inputs(name: str, net: nn.Module) -> tuple[tuple[int, ...], ...]:
    """One input of the size that the published weights were made for; two images for optical flow."""
    import torchvision

    module = torchvision.models.get_model_builder(name).__module__
    if "optical_flow" in module:
        return ((BATCH, 3, 128, 128),) * 2  # the smallest that its four levels take
    if "detection" in module or "segmentation" in module:
        return ((BATCH, 3, 320, 320),)
    weights = next(iter(torchvision.models.get_model_weights(name)))
    size = getattr(net, "image_size", weights.transforms().crop_size[0])
    if "video" in module:
        return ((BATCH, 3, 16, size, size),)
    return ((BATCH, 3, size, size),)
