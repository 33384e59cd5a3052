"""How each tool is asked for one unit's deconvnet or guided projection, and in a process of its own.

All are given the same: a network that returns one number, the unit at its position (a hook reads it off), in
evaluation mode and in float64, and one image. ``python -m bench.sight_tools TOOL FOLDER`` writes what a tool
returns, or its error, beside the oracle's answers in FOLDER.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from bench.sight_networks import Spot, build

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the oracle lives

RULES = ("deconvnet", "guided", "gated", "gradient")


class AtUnit(nn.Module):
    """A network as the value of one of its units, of shape (1, 1)."""

    def __init__(self, network: nn.Module, spot: Spot) -> None:
        super().__init__()
        self.network, self.spot, self.found = network, spot, None
        network.get_submodule(spot.layer).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        self.found = output if self.found is None else self.found
        return output.clone()  # what follows may write into it

    def forward(self, image: Tensor) -> Tensor:
        """Return the unit's value."""
        self.found = None
        self.network(image)
        return self.found[0, self.spot.unit][self.spot.position].reshape(1, 1)


Ask = Callable[[nn.Module, Tensor, Spot, str], Tensor]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        package: the distribution, for its version.
        rules: those that it has.
        ask: from a network, an image (1, channels, height, width), a spot and a rule to the projection.
        absent: modules that it imports and that this doesn't need.
    """

    package: str
    rules: tuple[str, ...]
    ask: Ask
    absent: tuple[str, ...] = ()


def _convscope(network: nn.Module, image: Tensor, spot: Spot, rule: str) -> Tensor:
    from convscope.sight import project
    from sight.unjudged import unjudged

    with unjudged():
        found = project(network, image, spot.layer, spot.unit, rule=rule, position=spot.position)
    return found.image.permute(2, 0, 1)[None]


def _captum(network: nn.Module, image: Tensor, spot: Spot, rule: str) -> Tensor:
    from captum.attr import Deconvolution, GuidedBackprop

    method = Deconvolution if rule == "deconvnet" else GuidedBackprop
    return method(AtUnit(network, spot)).attribute(image.requires_grad_(), target=0)


def _zennit(network: nn.Module, image: Tensor, spot: Spot, rule: str) -> Tensor:
    from zennit.composites import DeconvNet, GuidedBackprop

    composite = DeconvNet() if rule == "deconvnet" else GuidedBackprop()
    image.requires_grad_()
    with composite.context(AtUnit(network, spot)) as modified:
        return torch.autograd.grad(modified(image).sum(), image)[0]


def _torchlens(network: nn.Module, image: Tensor, spot: Spot, rule: str) -> Tensor:
    from torchlens.attribution import deconvolution, guided_backprop

    method = deconvolution if rule == "deconvnet" else guided_backprop
    return method(AtUnit(network, spot), image, target=0).values


def _grad_cam(network: nn.Module, image: Tensor, spot: Spot, _rule: str) -> Tensor:
    from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel

    made = GuidedBackpropReLUModel(AtUnit(network, spot))(image, target_category=0)
    return torch.as_tensor(made).permute(2, 0, 1)[None]


_PLOTS = ("matplotlib", "captum.attr._utils.visualization", "captum.attr._core.llm_attr")
_CAM_NEEDS = ("ttach", "cv2", "matplotlib", "sklearn")
_BOTH = ("deconvnet", "guided")

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "convscope": Tool("convscope", RULES, _convscope),
        "Captum": Tool("captum", _BOTH, _captum, _PLOTS),
        "Zennit": Tool("zennit", _BOTH, _zennit),
        "TorchLens": Tool("torchlens", _BOTH, _torchlens),
        "pytorch-grad-cam": Tool("grad-cam", ("guided",), _grad_cam, _CAM_NEEDS),
    }
)
"""By the name that the tables show."""


def main(name: str, folder: Path) -> None:
    """Write a tool's answer to every question in a folder: a projection, or ``KIND: message``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tool = TOOLS[name]
    without(tool.absent)
    asked: dict[str, Spot] = torch.load(folder / "spots.pt", weights_only=False)
    answers: dict[str, dict[str, Any]] = {}
    for network_name, spot in asked.items():
        network, image = build(network_name)
        answers[network_name] = {
            rule: _answer(tool.ask, copy.deepcopy(network), image[None].clone(), spot, rule)
            for rule in tool.rules
        }
    torch.save(answers, folder / f"{name}.pt")


def _answer(ask: Ask, network: nn.Module, image: Tensor, spot: Spot, rule: str) -> Tensor | str:
    try:
        return ask(network, image, spot, rule).detach()[0].clone()
    except Exception as error:  # what a tool raises is what is measured
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


class _StandIns(MetaPathFinder, Loader):
    """Finds modules that aren't needed here, whatever their names."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Return a specification for a module of the packages."""
        is_one = any(name == package or name.startswith(f"{package}.") for package in self.packages)
        return ModuleSpec(name, self, is_package=True) if is_one else None

    def create_module(self, spec: ModuleSpec) -> MagicMock:
        """Return a module that has everything."""
        return MagicMock(__path__=[], __name__=spec.name, __file__=None)

    def exec_module(self, module: object) -> None:
        """Leave it as it is."""


def without(packages: tuple[str, ...]) -> None:
    """Let modules that aren't installed be imported from now on."""
    sys.meta_path.insert(0, _StandIns(packages))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
