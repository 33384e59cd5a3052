"""An independent list of the operators that a run dispatches."""

from torch.utils._python_dispatch import TorchDispatchMode

from convscope.tape import operator_name


class DispatchedNames(TorchDispatchMode):
    """Collects operators' names in order, bookkeeping left out, in ``names``."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if operator_name(func) is not None:
            self.names.append(operator_name(func))
        return func(*args, **(kwargs or {}))
