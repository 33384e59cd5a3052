"""``zf-stem``: is a first layer of 7×7 with stride 2 better than one of 11×11 with stride 4?"""

from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.arms import names_where
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.stems import stem_numbers

_ERRORS = Published(
    "ImageNet validation top-1 error of one network: 40.5 % with AlexNet's stem, 38.4 % with ZFNet's, whose "
    "layers 3 to 5 are also connected across both halves",
    "Zeiler and Fergus 2013 (arXiv 1311.2901), table 2 and 3",
)
_LOOKS = Published(
    "AlexNet's first layer mixes extremely high and low frequencies with little between; its second shows "
    "aliasing from the stride of 4; 7×7 with stride 2 keeps much more",
    "Zeiler and Fergus 2013, section 4.1, figure 6, by eye",
)


@register("zf-stem")
def zf_stem() -> Experiment:
    """Return the experiment on ZFNet with either stem."""
    arms = crossed_arms(
        "zfnet",
        {"stem": ["11x11/4", "7x7/2"], "second_stride": [1, 2]},
        {"epochs": 8, "batch_size": 32, "learning_rate": 0.02, "warmup_epochs": 0.5, "augment": "shift"},
        {"norm": "batch", "width": 0.25, "input_shape": (3, 128, 128), "init": "published-stem"},
    )
    large, small = names_where(arms, stem="11x11/4"), names_where(arms, stem="7x7/2")
    scale = (
        "Patches of 128 pixels of ten smooth photographs, and 8 epochs. Only a tenth of their energy lies "
        "where either stem could alias, so shares are small; 500 validation patches tell about a point "
        "apart."
    )
    return Experiment(
        "zf-stem",
        "What do a smaller first window and stride bring, and is it they or the second layer's stride?",
        "ZFNet (a quarter of its width, batch norm, 128 pixels) learns the ten photographs for 8 epochs, "
        "with images shifted and mirrored (SGD, momentum 0.9, weight decay 0.0005, rate 0.02 on a cosine "
        "after half an epoch of warm-up, batch 32) with a first layer of 11×11/4 or 7×7/2 and a second of "
        "5×5 with stride 1 or 2: AlexNet's stem is 11×11/4 with stride 1, ZFNet's 7×7/2 with stride 2. "
        "Conv1 begins at the papers' deviation of 0.01, since a short training would drown in He's; all "
        "other layers begin alike; five paired seeds. Judged: the final error of ZFNet's stem against "
        "AlexNet's, and of 7×7/2 against 11×11/4 over both second strides; and of the stem's diagnosis on "
        "the validation patches, over both second strides: the share of energy that conv1's stride aliases, "
        "the gap of middle frequencies, and the share of images that keep their class when they move by a "
        "pixel.",
        (_ERRORS, _LOOKS),
        Table("photos", arms, baseline=large[0]),
        _claims(large, small),
        (ExtraMeasure("stem", "shares of energy, frequencies and images; see convscope stem", _stem),),
        scale,
    )


def _claims(large: tuple[str, ...], small: tuple[str, ...]) -> tuple[Claim, ...]:
    """Of the arms with either window, the second stride 1 before 2."""
    alexnets, zfnets = large[:1], small[-1:]
    return (
        Claim(
            "lower error",
            "ZFNet's stem ends with a lower validation error than AlexNet's.",
            Contrast("final_error", zfnets, alexnets, "lower"),
            _ERRORS,
        ),
        Claim(
            "the window, whatever the second stride",
            "Over both second strides, 7×7/2 ends with a lower validation error than 11×11/4.",
            Contrast("final_error", small, large, "lower"),
            _ERRORS,
        ),
        Claim(
            "less aliasing",
            "Conv1's stride aliases a smaller share of the energy with 7×7/2.",
            Contrast("stem.aliased, images", small, large, "lower"),
            _LOOKS,
        ),
        Claim(
            "less aliasing, filter alone",
            "So it does for white input.",
            Contrast("stem.aliased, filter alone", small, large, "lower"),
            _LOOKS,
            "Initial noise has a part in it: it fills high frequencies that nothing was learnt of.",
        ),
        Claim(
            "middle frequencies",
            "The gap of middle frequencies is smaller with 7×7/2.",
            Contrast("stem.mid-frequency gap", small, large, "lower"),
            _LOOKS,
            "Initial noise makes most of the gap in a training this short.",
        ),
        Claim(
            "steadier",
            "More images keep their class when they move by a pixel.",
            Contrast("stem.top-1 kept", zfnets, alexnets, "higher"),
            None,
        ),
    )


def _stem(folder: Path) -> dict[str, float]:
    run = finished(folder)
    return stem_numbers(run.model, run.data.validation)
