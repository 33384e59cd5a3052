"""Training: can this network learn these images, and how does it get there?

:func:`train` runs our own loop on Hugging Face accelerate: on one device, or on many processes under
``torchrun`` or ``accelerate launch``. A run leaves a folder with a log, a checkpoint to resume from, and
the best and the final weights; :func:`read_run` reads it back. Interrupted and resumed on CPU, a run ends
with the same bits as without the interruption.

Limits: classification with one label per image; cross-entropy; each process normalises its own share of a
batch; precision fp32 or bfloat16 autocast.
"""

from convscope.core.callable_room import make_callable
from convscope.train.config import TrainConfig as TrainConfig
from convscope.train.keeping.folder import read_run as read_run
from convscope.train.keeping.log import Log as Log
from convscope.train.keeping.log import read_log as read_log
from convscope.train.request import train as train
from convscope.train.run import Divergence as Divergence
from convscope.train.run import EpochRecord as EpochRecord
from convscope.train.run import Run as Run
from convscope.train.run import StepRecord as StepRecord
from convscope.train.telling.progress import NoProgress as NoProgress
from convscope.train.telling.progress import Progress as Progress
from convscope.train.telling.progress import Pulse as Pulse

__all__ = [
    "Divergence",
    "EpochRecord",
    "Log",
    "NoProgress",
    "Progress",
    "Pulse",
    "Run",
    "StepRecord",
    "TrainConfig",
    "read_log",
    "read_run",
    "train",
]

make_callable(__name__, train)
