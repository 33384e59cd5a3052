"""Readable names of operators, as the table of layers writes them."""

import re

_READABLE = {
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "native_dropout": "dropout",
    "nll_loss_forward": "nll_loss",
    "nll_loss2d_forward": "nll_loss",
    "_prelu_kernel": "prelu",
    "log_sigmoid_forward": "log_sigmoid",
    "rrelu_with_noise": "rrelu",
    "constant_pad_nd": "pad",
    "_to_copy": "cast",
    "_unsafe_view": "view",
    "linalg_vector_norm": "norm",
    "mkldnn_rnn_layer": "recurrent_layer",
    "cudnn_convolution": "convolution",
    "mkldnn_convolution": "convolution",
    "miopen_convolution": "convolution",
    "_convolution": "convolution",
}


def readable(operator: str) -> str:
    """Return an operator's name without what only its implementation needs.

    Example:
        >>> readable("relu_"), readable("_log_softmax"), readable("max_pool2d_with_indices")
        ('relu', 'log_softmax', 'max_pool2d')
    """
    name = operator.removesuffix("_")
    return _READABLE.get(name, name.removeprefix("_"))


def of_module(type_name: str) -> str:
    """Return the operator name for a module whose own operators don't say what it is.

    Example:
        >>> of_module("LocalResponseNorm"), of_module("BatchNorm2d"), of_module("AdaptiveAvgPool2d")
        ('local_response_norm', 'batch_norm', 'adaptive_avg_pool2d')
    """
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type_name).lower()
    return re.sub(r"(?<=norm)[123]d$", "", name)
