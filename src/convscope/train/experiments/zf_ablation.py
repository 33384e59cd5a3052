"""``zf-ablation``: which of ZFNet's layers does it need?"""

from typing import Any

from convscope.train.comparing.choices import made_arm
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Arm, Table

_DESIGNS: dict[str, dict[str, Any]] = {
    "whole": {},
    "without 3, 4": {"removed": (3, 4)},
    "without 7": {"removed": (7,)},
    "without 6, 7": {"removed": (6, 7)},
    "without 3, 4, 6, 7": {"removed": (3, 4, 6, 7)},
    "half of 6, 7": {"hidden": (2048, 2048)},
    "wider 3, 4, 5": {"middle": (512, 1024, 512)},
}

_SOURCE = "Zeiler and Fergus 2013 (arXiv 1311.2901), section 5.1, table 3"
_TABLE = Published(
    "validation top-1 error of AlexNet on ImageNet: whole 40.5 %, without layers 3 and 4 45.4, without 7 "
    "40.0, without 6 and 7 44.8, without 3, 4, 6 and 7 71.3; of ZFNet: whole 38.4, 6 and 7 halved 40.2, 3 "
    "to 5 wider 37.5",
    _SOURCE,
)


@register("zf-ablation")
def zf_ablation() -> Experiment:
    """Return table 3 on ZFNet of a quarter of its width."""
    arms = tuple(_arm(name, design) for name, design in _DESIGNS.items())
    scale = (
        "The paper removes layers from AlexNet, here they are removed from ZFNet; ten classes of patches "
        "that colour and texture tell apart need less depth than a thousand classes of ImageNet do. An "
        "order of the designs can be concluded for this task, not for theirs."
    )
    return Experiment(
        "zf-ablation",
        "What does the error do when layers are left out or resized?",
        "ZFNet (a quarter of its width, batch norm, dropout 0.5, 64 pixels) learns the ten photographs for "
        "12 epochs, with images shifted and mirrored (SGD, momentum 0.9, weight decay 0.0005, rate 0.02 on "
        "a cosine, batch 32) as it is, without layers 3 and 4, 7, 6 and 7, and all four, with half the "
        "units in 6 and 7, and with 512, 1,024 and 512 channels in 3 to 5 (a quarter of each); five paired "
        "seeds, the same initial weights wherever shapes agree. Judged: the final error of each design "
        "against the whole network's.",
        (_TABLE,),
        Table("photos", arms, baseline="whole"),
        (
            *(
                Claim(
                    f"{name} needed",
                    f"The error is higher {design}.",
                    Contrast("final_error", (design,), ("whole",), "higher"),
                    _TABLE,
                )
                for name, design in (
                    ("all four are", "without 3, 4, 6, 7"),
                    ("the middle is", "without 3, 4"),
                    ("the classifier is", "without 6, 7"),
                )
            ),
            Claim(
                "layer 7 isn't",
                "Without layer 7 the error is within a point of the whole network's.",
                Contrast("final_error", ("without 7",), ("whole",), "same", margin=0.01),
                _TABLE,
            ),
            Claim(
                "width helps",
                "With wider layers 3 to 5 the error is lower.",
                Contrast("final_error", ("wider 3, 4, 5",), ("whole",), "lower"),
                _TABLE,
            ),
        ),
        scale=scale,
    )


def _arm(name: str, design: dict[str, Any]) -> Arm:
    settings = {"epochs": 12, "batch_size": 32, "learning_rate": 0.02, "augment": "shift"}
    options = {"norm": "batch", "width": 0.25, "input_shape": (3, 64, 64), **design}
    return made_arm("zfnet", {}, settings, options, name)
