"""Reading 4: what every unit of a network looks for, and what is wrong with its first layer.

:func:`project` shows one unit in one image, :func:`gallery` the strongest images of all units with their
projections, :func:`stem` diagnoses the first convolution. None of them changes the model.

Limits: images only (two-dimensional convolutions); ReLU is the only activation with a deconvnet or guided
rule; ``gated`` takes any x · gate(x), and an operator without a rule is an error that names it.
"""

from convscope.sight.comparing.result import GalleryComparison
from convscope.sight.comparison import compare_galleries
from convscope.sight.correspondence import correspondence
from convscope.sight.corresponding.marks import Mark, Masking
from convscope.sight.corresponding.result import Correspondence
from convscope.sight.evolution import Evolution
from convscope.sight.evolving.result import FeatureEvolution
from convscope.sight.gallery import gallery
from convscope.sight.images import ImageSource
from convscope.sight.invariance import invariance
from convscope.sight.occluding.plan import OcclusionPlan
from convscope.sight.occluding.result import Occlusion
from convscope.sight.occlusion import occlusion
from convscope.sight.picturing.album import Example, Gallery, Layer, Sprite, Unit
from convscope.sight.picturing.options import Course, GalleryOptions
from convscope.sight.picturing.origin import Origin
from convscope.sight.picturing.tiles import as_picture
from convscope.sight.project import project
from convscope.sight.projecting.projection import Box, Census, Projection, Rule, Scores
from convscope.sight.projecting.registering import gate_rule, linear_operators
from convscope.sight.renormalisation import Renormalisation
from convscope.sight.renormalising.result import Renormalised, RenormalisedLayer
from convscope.sight.stem import stem
from convscope.sight.stems.diagnosis import (
    Aliasing,
    Coverage,
    Filter,
    Lattice,
    LayerShift,
    Octave,
    Shifts,
    Spread,
    Stem,
    WhatIf,
)
from convscope.sight.transforming.plan import InvariancePlan
from convscope.sight.transforming.result import Invariance

__all__ = [
    "Aliasing",
    "Box",
    "Census",
    "Correspondence",
    "Course",
    "Coverage",
    "Evolution",
    "Example",
    "FeatureEvolution",
    "Filter",
    "Gallery",
    "GalleryComparison",
    "GalleryOptions",
    "ImageSource",
    "Invariance",
    "InvariancePlan",
    "Lattice",
    "Layer",
    "LayerShift",
    "Mark",
    "Masking",
    "Occlusion",
    "OcclusionPlan",
    "Octave",
    "Origin",
    "Projection",
    "Renormalisation",
    "Renormalised",
    "RenormalisedLayer",
    "Rule",
    "Scores",
    "Shifts",
    "Spread",
    "Sprite",
    "Stem",
    "Unit",
    "WhatIf",
    "as_picture",
    "compare_galleries",
    "correspondence",
    "gallery",
    "gate_rule",
    "invariance",
    "linear_operators",
    "occlusion",
    "project",
    "stem",
]
