"""``bn-regularise``: does batch norm regularise?"""

from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.companions import companions
from convscope.train.experiments.measures.errors import gap

_NOISE = Published(
    "a training example is seen together with other examples, so the network gives no deterministic values "
    "for it; Inception went from 72.2 to 72.7 % with batch norm alone, and to 73.0 % at 5 times the rate "
    "with dropout removed and L2 divided by 5, among other changes",
    "Ioffe and Szegedy 2015 (arXiv 1502.03167), sections 3.4, 4.2.1 and 4.2.2",
)


@register("bn-regularise")
def bn_regularise() -> Experiment:
    """Return the experiment on a small VGG that can learn its training images by heart."""
    arms = crossed_arms(
        "convscope.train.experiments.networks:plain_network",
        {"norm": ["none", "batch"], "batch_size": [8, 64]},
        {"epochs": 20, "learning_rate": 0.01, "weight_decay": 0.0},
        {"width": 16},
    )
    without, with_norm = names_where(arms, norm="none"), names_where(arms, norm="batch")
    scale = (
        "Two thousand patches and a network that could learn them by heart, without any other "
        "regularisation. A gap is also smaller in a network that fits its training images less well, which "
        "is why training loss and validation error stand beside it."
    )
    return Experiment(
        "bn-regularise",
        "Is the gap between training and validation smaller with batch norm, and how noisy does it make "
        "outputs?",
        "A small VGG (six 3×3 convolutions of 16, 32 and 64 channels) learns the ten photographs for 20 "
        "epochs (SGD, momentum 0.9, rate 0.01 on a cosine, batches of 8 and 64), without weight decay, "
        "dropout or augmentation, with and without batch norm; five paired seeds. Afterwards both splits "
        "are measured alike in evaluation mode. Noise: every validation image goes through the network in "
        "20 random batches with batch norms in training mode; the deviation of the true class's probability "
        "over the batches is averaged over images. Judged: the loss gap and the validation error, with "
        "against without; and the deviation in batches of 8 over that in batches of 64.",
        (_NOISE,),
        Table("photos", arms, baseline=without[0]),
        (
            Claim(
                "smaller gap",
                "Validation loss exceeds training loss by less with batch norm.",
                Contrast("gap.loss gap", with_norm, without, "lower"),
                _NOISE,
            ),
            Claim(
                "lower error",
                "The validation error is lower with batch norm.",
                Contrast("gap.validation error", with_norm, without, "lower"),
                _NOISE,
                "Faster optimisation lowers it too; it can't be told apart here.",
            ),
            Claim(
                "outputs depend on companions",
                "A network's probability of the true class deviates more between batches of 8 than of 64.",
                Contrast("companions.8 over 64", with_norm, (), "higher", "ratio", reference=1.0),
                _NOISE,
                "That it deviates at all follows from the formula; how much is what is measured.",
            ),
        ),
        (
            ExtraMeasure("gap", "loss (nats) and error of both splits in evaluation mode", _gap),
            ExtraMeasure("companions", "noise of outputs in batches of 8 and of 64", _companions),
        ),
        scale,
    )


def _gap(folder: Path) -> dict[str, float]:
    run = finished(folder)
    return gap(run.model, run.data.train, run.data.validation)


def _companions(folder: Path) -> dict[str, float]:
    run = finished(folder)
    found = {}
    for size in (8, 64):
        for name, number in companions(run.model, run.data.validation, size).items():
            found[f"{name} of {size}"] = number
    if min(found["deviation of 8"], found["deviation of 64"]) > 1e-6:  # not the rounding of other sums
        found["8 over 64"] = found["deviation of 8"] / found["deviation of 64"]
    return found
