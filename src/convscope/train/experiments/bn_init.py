"""``bn-init``: is careful initialisation less important with batch norm?"""

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where

SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Factors of He's initial weights: four decades."""

_INVARIANCE = Published(
    "BN(aWu) = BN(Wu): the scale of a layer's weights changes neither its output nor the gradient that it "
    "passes back, and larger weights get smaller gradients",
    "Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3.3; no table of errors over scales is given there",
)


@register("bn-init")
def bn_init() -> Experiment:
    """Return the experiment on a small VGG."""
    arms = crossed_arms(
        "convscope.train.experiments.networks:plain_network",
        {"norm": ["none", "batch"], "init_scale": list(SCALES)},
        {"epochs": 6, "batch_size": 32, "learning_rate": 0.02},
        {"width": 16},
    )
    without, with_norm = names_where(arms, norm="none"), names_where(arms, norm="batch")
    scale = (
        "Six convolutions on ten photographs' patches of 32 pixels. How wide the range is depends on depth "
        "and length of training; that it is wider with batch norm is what can be concluded."
    )
    return Experiment(
        "bn-init",
        "Over which range of initial scales does a network still learn, with and without batch norm?",
        "A small VGG (six 3×3 convolutions of 16, 32 and 64 channels) learns the ten photographs for 6 "
        "epochs (SGD, momentum 0.9, rate 0.02 on a cosine, batch 32). Its initial weights are He's times "
        f"{', '.join(f'{each:g}' for each in SCALES)}; biases begin at 0; five paired seeds, and the same "
        "draws at every scale. A diverged run counts as guessing. Judged: for every seed the spread of the "
        "final error over the five scales (highest − lowest), with batch norm against without; and the mean "
        "over the scales; and the final error at the smallest and at the largest scale.",
        (_INVARIANCE,),
        Table("photos", arms, baseline=names_where(arms, norm="none", init_scale=1.0)[0]),
        (
            Claim(
                "smaller spread",
                "Over four decades of initial scales the final error varies less with batch norm.",
                Contrast("final_error", with_norm, without, "lower", reduce="spread"),
                _INVARIANCE,
            ),
            Claim(
                "lower on the whole",
                "On the average over the five scales the final error is lower with batch norm.",
                Contrast("final_error", with_norm, without, "lower"),
                _INVARIANCE,
                "Added after the pilot: a spread also grows where the best scale gets better.",
            ),
            Claim(
                "too small",
                f"From {SCALES[0]:g} of He's weights on, the final error is lower with batch norm.",
                Contrast("final_error", with_norm[:1], without[:1], "lower"),
                _INVARIANCE,
            ),
            Claim(
                "too large",
                f"From {SCALES[-1]:g} times He's weights on, the final error is lower with batch norm.",
                Contrast("final_error", with_norm[-1:], without[-1:], "lower"),
                _INVARIANCE,
                "Weights this large also get gradients this small from batch norm, so that they hardly move.",
            ),
        ),
        scale=scale,
    )
