"""Which choice is better, and is that more than chance? A table of trainings with paired seeds.

:func:`compare` runs every arm of a table with every seed, side by side, and returns a
:class:`Comparison`: curves with bands, final errors with intervals, steps to a target, and one verdict for
each claim of an :class:`Experiment`.

Limits: uncertainty is over seeds on one split of one data set; claims are judged one by one.
"""

from convscope.train.comparing.asking import Execution as Execution
from convscope.train.comparing.asking import table_of as table_of
from convscope.train.comparing.course import ComparingProgress as ComparingProgress
from convscope.train.comparing.course import Standing as Standing
from convscope.train.comparing.experiment import Claim as Claim
from convscope.train.comparing.experiment import Contrast as Contrast
from convscope.train.comparing.experiment import Experiment as Experiment
from convscope.train.comparing.experiment import ExtraMeasure as ExtraMeasure
from convscope.train.comparing.experiment import Published as Published
from convscope.train.comparing.forecast import ComparisonForecast as ComparisonForecast
from convscope.train.comparing.reading import read_comparison as read_comparison
from convscope.train.comparing.registry import Registry as Registry
from convscope.train.comparing.registry import experiment as experiment
from convscope.train.comparing.registry import experiment_names as experiment_names
from convscope.train.comparing.registry import experiments as experiments
from convscope.train.comparing.registry import register as register
from convscope.train.comparing.request import compare as compare
from convscope.train.comparing.request import forecast as forecast
from convscope.train.comparing.result import Comparison as Comparison
from convscope.train.comparing.result import Verdict as Verdict
from convscope.train.comparing.table import Arm as Arm
from convscope.train.comparing.table import Table as Table

__all__ = [
    "Arm",
    "Claim",
    "ComparingProgress",
    "Comparison",
    "ComparisonForecast",
    "Contrast",
    "Execution",
    "Experiment",
    "ExtraMeasure",
    "Published",
    "Registry",
    "Standing",
    "Table",
    "Verdict",
    "compare",
    "experiment",
    "experiment_names",
    "experiments",
    "forecast",
    "read_comparison",
    "register",
    "table_of",
]
