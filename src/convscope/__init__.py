"""convscope: the anatomy of a convolutional network.

What every layer costs, whether its batch norm is healthy, how to run it without batch norm, and what
each unit looks for. Everything is imported on first use, so that ``import convscope`` and
``convscope --help`` never wait for PyTorch.

Example:
    >>> import convscope as cs
    >>> model, inputs = cs.load("alexnet")
    >>> cs.cost(model, inputs).totals.params
    62378344
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convscope.core.result import set_renderers

if TYPE_CHECKING:
    from convscope import norm as norm
    from convscope.checkup import checkup as checkup
    from convscope.checkup import expected as expected
    from convscope.checkup import watch as watch
    from convscope.core.errors import ConvscopeError as ConvscopeError
    from convscope.cost import cost as cost
    from convscope.cost.batch.largest import largest_batch as largest_batch
    from convscope.fold import fold as fold
    from convscope.gate import gate as gate
    from convscope.networks import load as load
    from convscope.report import report as report
    from convscope.sight import gallery as gallery
    from convscope.sight import project as project
    from convscope.sight import stem as stem
    from convscope.tape import TrainingPlan as TrainingPlan
    from convscope.tape import record as record
    from convscope.train import compare as compare
    from convscope.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "ConvscopeError": "core.errors",
    "TrainingPlan": "tape",
    "compare": "train",
    "expected": "checkup",
    "gallery": "sight",
    "largest_batch": "cost.batch",
    "load": "networks",
    "project": "sight",
    "record": "tape",
    "stem": "sight",
    "watch": "checkup",
}
# Rooms whose module can itself be called: ``cs.cost(model, inputs)`` and ``cs.cost.Cost`` both work.
_ROOMS = ("checkup", "cost", "data", "fold", "gate", "networks", "norm", "report", "sight", "tape", "train")

__all__ = [
    "ConvscopeError",
    "TrainingPlan",
    "checkup",
    "compare",
    "cost",
    "expected",
    "fold",
    "gallery",
    "gate",
    "largest_batch",
    "load",
    "norm",
    "project",
    "record",
    "report",
    "stem",
    "train",
    "watch",
]

set_renderers(
    "convscope.report.terminal",
    "convscope.report.notebook",
    "convscope.report.pages.gallery",
    "convscope.report.pages.experiment",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"convscope.{name}")
    if name in _HOMES:
        return getattr(import_module(f"convscope.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'convscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "__version__"})
