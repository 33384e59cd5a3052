"""How does a folded network leave PyTorch? As weights, as a program or as a graph, checked before it goes.

:func:`export` writes ``.safetensors``, ``.pt2`` or ``.onnx``; ``formats`` is the table of formats, ``check``
the comparison with the original network, which every file passes before it gets its name.

Limits: sizes other than the number of samples are fixed in programs and graphs.
"""

from convscope.core.callable_room import make_callable
from convscope.fold.export.export import export
from convscope.fold.export.formats import FORMATS, Format, check_format
from convscope.fold.export.result import Exported, NotExportable

__all__ = ["FORMATS", "Exported", "Format", "NotExportable", "check_format", "export"]

make_callable(__name__, export)
