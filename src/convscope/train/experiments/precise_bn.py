"""``precise-bn``: how many samples do running statistics need?"""

from pathlib import Path

from convscope.train.comparing.choices import crossed_arms
from convscope.train.comparing.experiment import Claim, Contrast, Experiment, ExtraMeasure, Published
from convscope.train.comparing.registry import register
from convscope.train.comparing.table import Table
from convscope.train.experiments.finished import finished
from convscope.train.experiments.measures.statistics import precise_statistics

_SAMPLES = Published(
    "10³ to 10⁴ samples are enough to estimate population statistics on ImageNet; statistics estimated so "
    "are steadier over training than running averages",
    "Wu and Johnson 2021 (arXiv 2105.07576), section 3",
)


@register("precise-bn")
def precise_bn() -> Experiment:
    """Return the experiment: one network, its statistics estimated again and again."""
    arms = crossed_arms(
        "convscope.train.experiments.networks:plain_network",
        {"batch_size": [4, 32]},
        {"epochs": 6, "learning_rate": 0.01, "schedule": "constant"},
        {"norm": "batch", "width": 16},
    )
    small, usual = (arm.name for arm in arms)
    scale = (
        "Networks of six batch norms, ten classes and 2,000 training images, which is all that there is to "
        "estimate on: where the curve becomes flat here says little about ImageNet's millions."
    )
    return Experiment(
        "precise-bn",
        "From how many samples on does the evaluation loss no longer depend on the statistics' sample?",
        "A small VGG with batch norm learns the ten photographs for 6 epochs at a constant rate of 0.01 "
        "(SGD, momentum 0.9), with batches of 4 and of 32; five paired seeds. Afterwards its running "
        "statistics are estimated anew on 2, 4, … 1,024 and all 2,000 training images (three random choices "
        "each, a larger one holding the smaller), and the validation loss is measured with each, beside the "
        "running averages that training left. Judged: loss with 1,024 samples against all of them (of which "
        "they are a part; the same within 2 %), with 16 against all, and with all against the running "
        "averages.",
        (_SAMPLES,),
        Table("photos", arms, baseline=usual),
        (
            Claim(
                "a thousand do",
                "The loss with statistics of 1,024 samples is within 2 % of that with all 2,000.",
                Contrast(
                    "statistics.1024 over all",
                    (small, usual),
                    (),
                    "same",
                    "ratio",
                    margin=1.02,
                    reference=1.0,
                ),
                _SAMPLES,
            ),
            Claim(
                "sixteen don't",
                "The loss with statistics of 16 samples is higher than with all.",
                Contrast("statistics.16 over all", (small, usual), (), "higher", "ratio", reference=1.0),
                _SAMPLES,
            ),
            Claim(
                "better than running averages",
                "At batch 4 the loss is lower with precise statistics than with the running averages.",
                Contrast("statistics.all over running", (small,), (), "lower", "ratio", reference=1.0),
                _SAMPLES,
                "The rate is constant to the end, so weights still move while averages are taken.",
            ),
        ),
        (ExtraMeasure("statistics", "validation loss (nats) and error by size of the sample", _statistics),),
        scale,
    )


def _statistics(folder: Path) -> dict[str, float]:
    run = finished(folder)
    sizes = (*(2**power for power in range(1, 11)), len(run.data.train))
    found = precise_statistics(run.model, run.data.train, run.data.validation, sizes)
    whole = found[f"loss {len(run.data.train)}"]
    return found | {
        "1024 over all": found["loss 1024"] / whole,
        "16 over all": found["loss 16"] / whole,
        "all over running": whole / found["running loss"],
    }
