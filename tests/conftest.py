"""Fixtures that every test uses: fixed seeds, and an importable torchvision beside CPU-only PyTorch."""

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a slow machine is no failure
settings.load_profile("untimed")

# torchvision 0.28 imports beside a PyTorch without its compiled operators once these two schemas exist.
_torchvision_schemas = torch.library.Library("torchvision", "DEF")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _torchvision_schemas.define(_schema)


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
