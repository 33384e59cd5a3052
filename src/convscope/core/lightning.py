"""Lightning's ``Callback`` class, which is an extra and goes by two package names."""

from convscope.core.errors import ConvscopeError


def callback_class(otherwise: str) -> type:
    """Return the class that callbacks of Lightning's trainer are made of.

    Args:
        otherwise: what to use without Lightning.

    Raises:
        ConvscopeError: Lightning isn't installed.
    """
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            found: type = __import__(package, fromlist=["Callback"]).Callback
        except ImportError:
            continue
        return found
    raise ConvscopeError(
        "Lightning isn't installed",
        "the package lightning",
        f"run `pip install lightning`, or use {otherwise}",
    )
