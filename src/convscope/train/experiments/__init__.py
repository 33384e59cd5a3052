"""The lecture notes' claims as experiments that anybody can repeat: networks, protocols, measures.

Each file registers one question, with everything that was laid down before its first run; ``convscope compare
NAME`` runs it. ``networks`` are what some of them train, ``measures`` what they read from finished runs.
"""

from convscope.train.comparing.registry import experiment_names
from convscope.train.experiments import (
    bn_init,
    bn_micro_batch,
    bn_regularise,
    bn_shift,
    bn_speed,
    pool_overlap,
    precise_bn,
    serving_time,
    zf_ablation,
    zf_stem,
)

EXPERIMENTS = experiment_names()
"""Names of the experiments that come with convscope."""

__all__ = [
    "EXPERIMENTS",
    "bn_init",
    "bn_micro_batch",
    "bn_regularise",
    "bn_shift",
    "bn_speed",
    "pool_overlap",
    "precise_bn",
    "serving_time",
    "zf_ablation",
    "zf_stem",
]
