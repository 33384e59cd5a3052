"""``pool-overlap``: are overlapping pools, 3×3 with stride 2, better than 2×2 with stride 2?"""

from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.errors import gap

_POOLS = Published(
    "overlapping pools lower top-1 and top-5 error by 0.4 and 0.3 points on ImageNet, and networks with "
    "them are slightly harder to overfit",
    "Krizhevsky, Sutskever and Hinton 2012, section 3.4",
)


@register("pool-overlap")
def pool_overlap() -> Experiment:
    """Return the experiment on AlexNet of a quarter of its width."""
    arms = crossed_arms(
        "alexnet",
        {"pool": ["overlapping", "non-overlapping"]},
        {"epochs": 15, "batch_size": 32, "learning_rate": 0.02, "augment": "shift"},
        {"norm": "batch", "width": 0.25, "input_shape": (3, 99, 99)},
    )
    overlapping, apart = (arm.name for arm in arms)
    scale = (
        "500 validation patches tell differences of about a point apart, not the 0.4 of the paper: here it "
        "can be ruled out that either pool is much better, no more. Maps before fc6 have the same size with "
        "both."
    )
    return Experiment(
        "pool-overlap",
        "Does a pool of 3×3 with stride 2 leave a lower error than one of 2×2?",
        "AlexNet (a quarter of its width, batch norm, 99 pixels) learns the ten photographs for 15 epochs, "
        "with images shifted and mirrored (SGD, momentum 0.9, weight decay 0.0005, rate 0.02 on a cosine, "
        "batch 32); five paired seeds. Judged: the final error, and the gap between the errors of training "
        "and validation images, both in evaluation mode.",
        (_POOLS,),
        Table("photos", arms, baseline=apart),
        (
            Claim(
                "lower error",
                "Overlapping pools end with a lower validation error.",
                Contrast("final_error", (overlapping,), (apart,), "lower"),
                _POOLS,
            ),
            Claim(
                "harder to overfit",
                "The gap between training and validation error is smaller with overlapping pools.",
                Contrast("gap.error gap", (overlapping,), (apart,), "lower"),
                _POOLS,
            ),
        ),
        (ExtraMeasure("gap", "loss (nats) and error of both splits in evaluation mode", _gap),),
        scale,
    )


def _gap(folder: Path) -> dict[str, float]:
    run = finished(folder)
    return gap(run.model, run.data.train, run.data.validation)
