"""``test-time``: does batch norm cost nothing at test time?"""

from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.serving import serving

_FUSED = Published(
    "batch norm is a fixed linear function at test time and fuses with the layer before: no overhead",
    "the lecture notes, “Pros & Cons of BN”; the function: Ioffe and Szegedy 2015 (arXiv 1502.03167), "
    "section 3.1, algorithm 2, step 11",
)


@register("test-time")
def serving_time() -> Experiment:
    """Return the experiment: trained networks, timed as they are, folded, and without batch norm."""
    arms = crossed_arms(
        "zfnet",
        {},
        {"epochs": 3, "batch_size": 32, "learning_rate": 0.02},
        {"norm": "batch", "width": 0.25, "input_shape": (3, 64, 64)},
    )
    names = names_where(arms)
    scale = (
        "One network on one CPU in batches of 8, whose seeds repeat one timing; times of other networks and "
        "devices differ (`convscope fold NETWORK --measure`). That outputs are the same holds for every "
        "input, and is proved in float64."
    )
    return Experiment(
        "test-time",
        "What does batch norm cost at test time: as it is, fused, and against a network without any?",
        "ZFNet (a quarter of its width, batch norm, 64 pixels) learns the ten photographs for 3 epochs; "
        "five seeds. Every trained network is folded; it, its folded form and the same network with its "
        "batch norms taken out pass 8 images in turn, 30 times each, in one process, and neighbours' times "
        "are divided. Judged: the folded network's time relative to the one without batch norm (the same "
        "within 5 %), that of the network as it is, and the change of the validation error by folding.",
        (_FUSED,),
        Table("photos", arms),
        (
            Claim(
                "fused costs nothing",
                "The fused network takes the time of one without batch norm, within 5 %.",
                Contrast("serving.folded", names, (), "same", "ratio", margin=1.05, reference=1.0),
                _FUSED,
            ),
            Claim(
                "unfused costs something",
                "As it is, the network takes longer than without batch norm.",
                Contrast("serving.as it is", names, (), "higher", "ratio", reference=1.0),
                _FUSED,
            ),
            Claim(
                "the same answers",
                "Folding changes the validation error by less than a tenth of a point.",
                Contrast("serving.error change", names, (), "same", margin=0.001),
                _FUSED,
            ),
        ),
        (ExtraMeasure("serving", "relative times, and changes by folding", _serving),),
        scale,
    )


def _serving(folder: Path) -> dict[str, float]:
    run = finished(folder)
    return serving(run.model, run.data.validation)
