"""What every test uses: fixed seeds, an importable torchvision beside CPU-only PyTorch, a quick collector."""

import gc
import os
import random
import sys

import numpy as np
import pytest
import torch
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as `make test` has it; accelerate warns without it
settings.register_profile("untimed", deadline=None)  # a slow machine is no failure
settings.load_profile("untimed")

# torchvision 0.28 imports beside a PyTorch without its compiled operators once these two schemas exist.
_torchvision_schemas = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _torchvision_schemas.define(_schema)


# torch.manual_seed writes down the stack for each accelerator that isn't there, at 400 times the cost.
_seed_torch = torch.manual_seed if torch.backends.cuda.is_built() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    _seed_torch(0)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect tests, which are no garbage either, with the collector at rest."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


_MANY = 200
_frozen_modules = 0


def pytest_runtest_setup(item):
    """Take what imported modules hold out of the garbage collector's sight, as it is never garbage.

    Measurements collect garbage first. Each time that took 0.4 s: most of a million objects of PyTorch, timm
    and the tests themselves were looked through, 15 % of the time of ``make test``.
    """
    global _frozen_modules
    if len(sys.modules) >= _frozen_modules + _MANY:
        _frozen_modules = len(sys.modules)
        gc.collect()
        gc.freeze()
