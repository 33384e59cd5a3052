"""Reading 4: what every unit of a network looks for, and what is wrong with its first layer.

:func:`project` shows one unit in one image, :func:`gallery` the strongest images of all units with their
projections, :func:`stem` diagnoses the first convolution. None of them changes the model.

Limits: images only (two-dimensional convolutions); ReLU is the only activation with a deconvnet or guided
rule, and the census beside every picture names what was passed by its plain gradient.
"""

from convscope.sight.album import Example, Gallery, Layer, Sprite, Unit
from convscope.sight.diagnosis import Filter, Stem, WhatIf
from convscope.sight.gallery import gallery
from convscope.sight.images import ImageSource
from convscope.sight.project import project
from convscope.sight.projection import Box, Census, Projection, Rule, Scores
from convscope.sight.stem import stem
from convscope.sight.tiles import as_picture

__all__ = [
    "Box",
    "Census",
    "Example",
    "Filter",
    "Gallery",
    "ImageSource",
    "Layer",
    "Projection",
    "Rule",
    "Scores",
    "Sprite",
    "Stem",
    "Unit",
    "WhatIf",
    "as_picture",
    "gallery",
    "project",
    "stem",
]
