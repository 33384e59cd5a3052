"""Which network is meant? AlexNet and ZFNet, and any other network by reference.

``alexnet`` and ``zfnet`` build; ``load`` goes from a text such as ``"timm:resnet18"`` to a network, its
inputs, its preprocessing and its class names; ``load_weights`` fills a network from a file and says what
fitted. Limits: nothing is ever downloaded; references to code and exported programs run what they name;
weights are matched by name alone.
"""

from convscope.networks.alexnet import AlexNet, alexnet
from convscope.networks.catalogue import Catalogue, OwnNetwork, Zoo, catalogue, names
from convscope.networks.load import PREFIXES, Loaded, load
from convscope.networks.plan import NORMS, Convolution, LayerChoices, Plan, last_map, minimum_size
from convscope.networks.preprocessing import (
    Preprocessing,
    default_class_names,
    default_preprocessing,
    read_class_names,
)
from convscope.networks.request import Request, Resolved
from convscope.networks.saved import Extras, save_weights
from convscope.networks.stack import Stack, build
from convscope.networks.weights import WeightsReport, load_weights
from convscope.networks.zfnet import ZFNet, zfnet

__all__ = [
    "NORMS",
    "PREFIXES",
    "AlexNet",
    "Catalogue",
    "Convolution",
    "Extras",
    "LayerChoices",
    "Loaded",
    "OwnNetwork",
    "Plan",
    "Preprocessing",
    "Request",
    "Resolved",
    "Stack",
    "WeightsReport",
    "ZFNet",
    "Zoo",
    "alexnet",
    "build",
    "catalogue",
    "default_class_names",
    "default_preprocessing",
    "last_map",
    "load",
    "load_weights",
    "minimum_size",
    "names",
    "read_class_names",
    "save_weights",
    "zfnet",
]
