"""A fixed sample of timm's and torchvision's networks, one per family, at a small size that it takes."""

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
