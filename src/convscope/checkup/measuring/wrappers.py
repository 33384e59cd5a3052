"""What is wrapped around a network, or hung into it: averages of weights, gradients of single samples."""

from torch import nn


def averaging_wrapper(model: nn.Module) -> str:
    """Return the class of the wrapper that averages weights, if the model is one; empty if not."""
    return ""


def per_sample_gradients(model: nn.Module) -> str:
    """Return what asks for gradients of single samples of this model; empty if nothing does."""
    return ""
