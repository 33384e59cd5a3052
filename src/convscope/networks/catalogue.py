"""Which networks can be loaded: ours with their variants, and how many the installed zoos offer."""

from dataclasses import dataclass

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.networks.alexnet import PLANS
from convscope.networks.plan import Plan
from convscope.networks.zfnet import ZFNET_PLAN
from convscope.networks.zoo import zoo_names

_ZOOS = ("timm", "torchvision")


@dataclass(frozen=True)
class OwnNetwork:
    """A network that convscope builds itself.

    Attributes:
        reference: what ``load`` takes.
        variant: its ``variant=``; empty where there is one only.
        input_shape: channels, height and width.
        norm: the normalisation that it has as published or taught.
        groups: the largest number of groups of a convolution.
    """

    reference: str
    variant: str
    input_shape: tuple[int, int, int]
    norm: str
    groups: int


@dataclass(frozen=True)
class Zoo:
    """A library of networks.

    Attributes:
        prefix: what its references begin with, such as ``"timm"``.
        names: what follows the prefix; empty where the library can't be used.
        problem: why it can't be used; empty where it can.
    """

    prefix: str
    names: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class Catalogue(Result):
    """Everything that ``load`` knows by name.

    Attributes:
        own: networks that convscope builds itself.
        zoos: other libraries' networks.
    """

    own: tuple[OwnNetwork, ...]
    zoos: tuple[Zoo, ...]


def catalogue() -> Catalogue:
    """Return the networks that can be loaded by name here. Imports timm and torchvision if installed."""
    own = [_own("alexnet", variant, plan) for variant, plan in PLANS.items()]
    return Catalogue((*own, _own("zfnet", "", ZFNET_PLAN)), tuple(_zoo(prefix) for prefix in _ZOOS))


def names() -> tuple[str, ...]:
    """Return the references of everything in the catalogue, ours first.

    Example:
        >>> names()[:2]
        ('alexnet', 'zfnet')
    """
    listed = catalogue()
    own = dict.fromkeys(network.reference for network in listed.own)
    return (*own, *(f"{zoo.prefix}:{name}" for zoo in listed.zoos for name in zoo.names))


def _own(reference: str, variant: str, plan: Plan) -> OwnNetwork:
    groups = max(convolution.groups for convolution in plan.convolutions)
    return OwnNetwork(reference, variant, plan.input_shape, plan.norm, groups)


def _zoo(prefix: str) -> Zoo:
    try:
        return Zoo(prefix, zoo_names(prefix))
    except ConvscopeError as error:
        return Zoo(prefix, (), str(error))
