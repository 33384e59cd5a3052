"""Functions of one or two values that random networks are made of, by name."""

import torch
import torch.nn.functional as F


def swapped(x, y):
    half = x.shape[1] // 2
    return torch.cat([y[:, half:], x[:, :half]], 1)


PAIRS = {
    "add": lambda x, y: x + y,
    "add_scaled": lambda x, y: torch.add(x, y, alpha=-0.5),
    "sub": lambda x, y: x - 2 * y,
    "add_in_place": lambda x, y: x.add_(y),
    "gated": lambda x, y: x * y.sigmoid(),
    "mean_gated": lambda x, y: x * y.mean((2, 3), keepdim=True).tanh(),
    "maximum": torch.maximum,
    "swapped": swapped,
}


POINTWISE = {
    "relu": F.relu,
    "relu_in_place": F.relu_,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "relu6": F.relu6,
    "silu": F.silu,
    "clone": torch.clone,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "negative": torch.neg,
    "double": lambda x: x.mul_(2),
    "more": lambda x: x + 0.75,
    "more_in_place": lambda x: x.add_(-0.5),
    "less": lambda x: 1 - x / 2,
    "centred": lambda x: x - x.mean((2, 3), keepdim=True),
    "half_written": lambda x: x[:, : x.shape[1] // 2].relu_().new_zeros(()) + x,
}


def shuffled(x):
    return x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


MOVED = {
    "columns_for_rows": (lambda c, h, w: True, lambda x: x.transpose(2, 3)),
    "rows_for_channels": (lambda c, h, w: c == h, lambda x: x.transpose(1, 2)),
    "shuffled": (lambda c, h, w: c % 2 == 0, lambda x: shuffled(x.contiguous())),
    "pixels": (lambda c, h, w: c % 4 == 0 and max(h, w) < 9, lambda x: F.pixel_shuffle(x, 2)),
    "rotated": (lambda c, h, w: c > 1, lambda x: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1)),
    "fewer": (lambda c, h, w: c > 3, lambda x: x[:, 1:]),
    "cropped": (lambda c, h, w: min(h, w) > 5, lambda x: x[:, :, 1:, :-1]),
    "mirrored": (lambda c, h, w: True, lambda x: x.flip(3)),
}
