"""Zeiler and Fergus's look at two stems, in numbers: ZFNet's 7×7 stride 2 against AlexNet's 11×11 stride 4.

Run: python examples/zf_stem.py

Five pairs of networks (half of ZFNet's width, 128 pixels, five epochs of 2,000 patches of ten photographs),
paired by seed: same order of images, same weights behind conv1. Measured with PyTorch 2.13 on one core of an
AMD EPYC, in 12 minutes of processor time. 11×11/4, 7×7/2, difference ± standard error [95 % interval,
Student's t]:

    test accuracy, %                 59.440   60.080  -0.640 ± 2.727 [-8.212, +6.932]  can't tell
    conv1 aliased share               0.008    0.003  +0.005 ± 0.001 [+0.003, +0.006]  agrees
    conv1 aliased, behind ReLU        0.014    0.006  +0.008 ± 0.002 [+0.003, +0.013]  agrees
    conv1 aliased, filter alone       0.522    0.299  +0.222 ± 0.013 [+0.187, +0.257]  agrees
    filter alone, what was learnt     0.191    0.104  +0.086 ± 0.005 [+0.072, +0.101]  agrees
    pool1 aliased share               0.033    0.021  +0.012 ± 0.002 [+0.007, +0.018]  no claim
    mid-frequency gap index           0.680    0.437  +0.243 ± 0.026 [+0.172, +0.314]  agrees
    gap index, what was learnt        0.000    0.000  +0.000 ± 0.000 [+0.000, +0.000]  can't tell
    energy at 1/8 to 1/4, %          14.326   20.552  -6.226 ± 0.272 [-6.981, -5.470]  agrees
    dead, weak, copied filters, %     0        0      in all ten networks              can't tell
    largest RMS / median              2.107    2.437  -0.330 ± 0.192 [-0.863, +0.203]  no claim, no difference
    largest RMS / ZF's radius         0.007    0.009  -0.002 ± 0.001 [-0.004, -0.001]  no claim
    conv1 maps, 1 px shift            0.183    0.177  +0.006 ± 0.019 [-0.046, +0.059]  can't tell
    conv2 maps, 1 px shift            0.321    0.390  -0.069 ± 0.021 [-0.128, -0.011]  disagrees
    same top-1, 1 px shift, %        96.875   99.375  -2.500 ± 2.073 [-8.255, +3.255]  can't tell
    lattice in conv2's projections    1.260    1.460  -0.200 ± 0.087 [-0.443, +0.043]  can't tell

The only finding is ``frequency-gap``: in all five 11×11/4 networks, and in one 7×7/2. What this says:

- Aliasing agrees in direction: 2.5 times as much on the images. But it is under 1 % in both, far below the
  25 % of the finding: only a tenth of these patches' energy lies beyond 1/8 cycles per pixel, and the
  filters learnt are low-pass.
- The gap agrees, but initial noise makes it: 38 to 54 % of the median 11×11 filter's energy (25 to 37 % of
  the 7×7's) is what it began with, and stands in for high frequencies. What was learnt has no gap in either
  stem.
- No filter died or dominates (3 times the median) in either. ZF saw such after 70 epochs on ImageNet, with
  pixels in ±128.
- Layer 2 doesn't agree: ZFNet's follows the image less well. Its conv2 has a stride of its own, so that
  both networks' conv2 has positions 8 pixels apart; and the lattices compared have periods of 8 and of 4
  pixels.
- Accuracy: an interval of ±7.6 points can't show the two that ZF gained.

So the diagnosis tells the stems apart as ZF did by eye in conv1's aliasing; the rest needs longer training
on more images. Of eighteen intervals of 95 % about one misses by chance.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import t as student  # type: ignore[import-untyped]
from torch import nn

import convscope as cs
from convscope.data import ImageData, load_data
from convscope.networks.stack import Stack, build
from convscope.train import TrainConfig

SIDE = 128
SETTINGS = TrainConfig(batch_size=32, learning_rate=0.01, warmup_epochs=0.5, device="cpu")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One number of both stems.

    Attributes:
        name: of the number.
        claimed: sign that ZF's words give the difference 11×11/4 − 7×7/2; 0: they say nothing about it.
        large, small: its means over the seeds.
        difference, error: mean of the paired differences, and its standard error.
        low, high: Student's interval for the difference, 95 %.
    """

    name: str
    claimed: int
    large: float
    small: float
    difference: float
    error: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the measurement agrees with ZF."""
        if self.low <= 0 <= self.high:
            return "can't tell" if self.claimed else "no claim, no difference"
        if not self.claimed:
            return "no claim"
        return "agrees" if (self.low > 0) == (self.claimed > 0) else "disagrees"


# What ZF's section 4.1 and figure 6 say of 11×11/4 beside 7×7/2, as signs of the difference.
CLAIMS = {
    "test accuracy, %": -1,
    "conv1 aliased share": 1,
    "conv1 aliased, behind ReLU": 1,
    "conv1 aliased, filter alone": 1,
    "filter alone, what was learnt": 1,
    "pool1 aliased share": 0,
    "mid-frequency gap index": 1,
    "gap index, what was learnt": 1,
    "energy at 1/8 to 1/4, %": -1,
    "dead filters, %": 1,
    "weak filters, %": 1,
    "superfluous copies, %": 1,
    "largest RMS / median": 0,
    "largest RMS / ZF's radius": 0,
    "conv1 maps, 1 px shift": 1,
    "conv2 maps, 1 px shift": 1,
    "same top-1, 1 px shift, %": -1,
    "lattice in conv2's projections": 1,
}


def twins(seed: int, width: float, num_classes: int) -> tuple[Stack, Stack]:
    """Return AlexNet's and ZFNet's stem in front of the same layers, with the same weights behind conv1.

    Conv1 starts at a deviation of 0.01, as in the paper: at Kaiming's 0.07 to 0.12 what a short training
    learns drowns in the initial noise.
    """
    torch.manual_seed(seed)
    small = cs.networks.zfnet(width=width, num_classes=num_classes, input_size=SIDE)
    first, second, *rest = small.plan.convolutions
    stem = (replace(first, kernel=11, stride=4, padding=0), replace(second, stride=1, padding=2))
    large = build(replace(small.plan, name="11×11/4", convolutions=(*stem, *rest)))
    for name, parameter in large.named_parameters():
        if name != "features.conv1.weight":
            parameter.data.copy_(small.get_parameter(name))
    for model in (large, small):
        nn.init.normal_(model.get_parameter("features.conv1.weight"), std=0.01)
    return large, small


def trained(model: Stack, data: ImageData, seed: int, epochs: int) -> float:
    """Train a network in place, and return its accuracy on held-out patches, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(SETTINGS, epochs=epochs, seed=seed)
        run = cs.train(model, data, out=f"{folder}/run", config=settings)
    return 100 * (run.validation_accuracy or 0.0)


def numbers(stem: cs.sight.Stem, learnt: cs.sight.Stem, accuracy: float) -> dict[str, float | None]:
    """Return what is compared, under the names of :data:`CLAIMS`.

    Args:
        stem: of the network.
        learnt: of the same with conv1's initial weights taken away.
        accuracy: in percent.
    """
    count = len(stem.filters) / 100
    pool = next(each for each in stem.operators if "pool1" in each.address)
    moved = {each.name: each.distance for each in stem.shifts.layers}
    projections = next(each for each in stem.lattices if each.of == "projections")
    agree = stem.shifts.top1_pixel
    values = (
        accuracy,
        stem.aliased_share,
        stem.activated_share,
        stem.filter_share,
        learnt.filter_share,
        pool.share.median if pool.share else None,
        stem.coverage.gap,
        learnt.coverage.gap,
        100 * stem.coverage.octaves[3].share,
        sum(each.dead for each in stem.filters) / count,
        sum(each.dominance < 0.1 for each in stem.filters) / count,
        sum(len(group) - 1 for group in stem.duplicates) / count,
        max(each.dominance for each in stem.filters),
        max(each.weight_rms for each in stem.filters) / stem.radius if stem.radius else None,
        moved["features.conv1"],
        moved["features.conv2"],
        None if agree is None else 100 * agree,
        projections.ratio,
    )
    return dict(zip(CLAIMS, values, strict=True))


def paired(name: str, large: Sequence[float], small: Sequence[float]) -> Row:
    """Compare a number of both stems, seed by seed."""
    differences = [one - other for one, other in zip(large, small, strict=True)]
    mean, count = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / count**0.5
    reach = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    means = statistics.mean(large), statistics.mean(small)
    return Row(name, CLAIMS.get(name, 0), *means, mean, error, mean - reach, mean + reach)


def summary(pairs: Sequence[tuple[dict[str, float | None], dict[str, float | None]]]) -> list[Row]:
    """Return a row for each number that all networks have."""
    rows = []
    for name in CLAIMS:
        large, small = ([each[name] for each in column] for column in zip(*pairs, strict=True))
        known = [[value for value in column if value is not None] for column in (large, small)]
        if len(known[0]) == len(known[1]) == len(pairs):
            rows.append(paired(name, *known))
    return rows


def measured(model: Stack, data: ImageData, seed: int, epochs: int) -> dict[str, float | None]:
    """Train a network and diagnose its stem on the held-out patches; print its findings."""
    weight = model.get_parameter("features.conv1.weight")
    before = weight.detach().clone()
    accuracy = trained(model, data, seed, epochs)
    images = data.validation.stacked()[0]
    stem = cs.stem(model.eval(), images)
    weight.data -= before
    learnt = cs.stem(model, images[:2])  # only for the filters themselves: images don't matter
    weight.data += before
    faults = ", ".join(finding.fault for finding in stem.findings) or "no finding"
    print(f"seed {seed}, {stem.kernel[0]}×{stem.kernel[1]}/{stem.stride[0]}: {accuracy:.1f} %, {faults}")
    return numbers(stem, learnt, accuracy)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the two stems' numbers, their paired differences, and whether they agree with the paper."""
    parser = argparse.ArgumentParser(description="ZFNet's stem and AlexNet's, trained and diagnosed")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of networks, at least 2")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=float, default=0.5, help="factor of all channels")
    parser.add_argument("--per-class", type=int, default=None, help="patches a class in each split")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 2:
        parser.error(f"--seeds {chosen.seeds}; expected at least 2, for a standard error")
    started = time.process_time()
    data = load_data("photos", size=SIDE, per_class=chosen.per_class)
    pairs = []
    for seed in range(chosen.seeds):
        large, small = twins(seed, chosen.width, len(data.classes))
        found = [measured(each, data, seed, chosen.epochs) for each in (large, small)]
        pairs.append((found[0], found[1]))
    print_table(summary(pairs))
    print(f"{time.process_time() - started:.0f} s of processor time")


def print_table(rows: Sequence[Row]) -> None:
    """Print one line for each number."""
    print(f"{'':31}  11×11/4    7×7/2  difference ± error [95 % interval]")
    for row in rows:
        print(
            f"{row.name:31} {row.large:8.3f} {row.small:8.3f}  {row.difference:+.3f} ± {row.error:.3f} "
            f"[{row.low:+.3f}, {row.high:+.3f}]  {row.verdict}"
        )


if __name__ == "__main__":
    main()
