"""Training: can this network learn these images, and how does it get there?

:func:`train` runs our own loop on Hugging Face accelerate: on one device, or on many processes under
``torchrun`` or ``accelerate launch``. A run leaves a folder with a log, a checkpoint to resume from, and
the best and the final weights; :func:`read_run` reads it back. Interrupted and resumed on CPU, a run ends
with the same bits as without the interruption.

Limits: classification with one label per image; cross-entropy; parameters in the model's own dtype, run in
it or under autocast to bfloat16 or float16.
"""

from convscope.core.callable_room import make_callable
from convscope.train.comparing import compare as compare
from convscope.train.comparing import read_comparison as read_comparison
from convscope.train.config import TrainConfig as TrainConfig
from convscope.train.experiments import EXPERIMENTS as EXPERIMENTS
from convscope.train.keeping.folder import read_run as read_run
from convscope.train.keeping.log import Log as Log
from convscope.train.keeping.log import read_log as read_log
from convscope.train.measuring.confusion import Confusion as Confusion
from convscope.train.measuring.confusion import load_confusion as load_confusion
from convscope.train.new_head import with_new_head as with_new_head
from convscope.train.recipes import Recipe as Recipe
from convscope.train.recipes import recipe as recipe
from convscope.train.request import train as train
from convscope.train.run import Divergence as Divergence
from convscope.train.run import EpochRecord as EpochRecord
from convscope.train.run import Run as Run
from convscope.train.run import StepRecord as StepRecord
from convscope.train.telling.forecast import Forecast as Forecast
from convscope.train.telling.progress import NoProgress as NoProgress
from convscope.train.telling.progress import Progress as Progress
from convscope.train.telling.progress import Pulse as Pulse

__all__ = [
    "EXPERIMENTS",
    "Confusion",
    "Divergence",
    "EpochRecord",
    "Forecast",
    "Log",
    "NoProgress",
    "Progress",
    "Pulse",
    "Recipe",
    "Run",
    "StepRecord",
    "TrainConfig",
    "compare",
    "load_confusion",
    "read_comparison",
    "read_log",
    "read_run",
    "recipe",
    "train",
    "with_new_head",
]

make_callable(__name__, train)
