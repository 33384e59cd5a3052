"""How much a sample's output varies with the other samples of its batch: batch norm's noise in training."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.data import ImageSet
from convscope.train.measuring.scores import scores_of

_DRAWS = 20


def companions(
    model: nn.Module, images: ImageSet, batch_size: int, seed: int = 0, draws: int = _DRAWS
) -> dict[str, float]:
    """Return how far the outputs of images depend on which others are in their batch.

    All images go through the network ``draws`` times, each time in other batches, with batch norms
    normalising by the batch as in training and everything else (dropout) as in evaluation. The network is
    copied first, and the copy's running statistics alone move.

    Args:
        model: maps images to class scores.
        images: an incomplete last batch sits a draw out.
        batch_size: images of a batch, at least 2.
        seed: of the batches.
        draws: how often each image is seen, about.

    Returns:
        ``"deviation"``: the standard deviation (n − 1) over the draws of the probability of the true class,
        averaged over images; ``"changes"``: the share of images whose predicted class isn't always the same.
        Both are 0 where nothing depends on the batch.

    Source: Ioffe and Szegedy 2015, section 3.4: "a training example is seen in conjunction with other
    examples in the mini-batch, and the training network no longer producing deterministic values".
    """
    network = copy.deepcopy(model).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    pixels, labels = images.stacked()
    seen = torch.zeros(len(labels))
    # Sums over the draws of the probability and of its square, by image; and whichever class came first.
    total, squares = torch.zeros(2, len(labels), dtype=torch.float64)
    first = torch.full((len(labels),), -1)
    changed = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(draws):
            order = torch.randperm(len(labels), generator=generator)
            for members in torch.split(order, batch_size):
                if len(members) < batch_size:
                    continue
                probability, predicted = _outputs(network, pixels[members], labels[members])
                seen[members] += 1
                total[members] += probability
                squares[members] += probability**2
                changed[members] |= (first[members] >= 0) & (first[members] != predicted)
                first[members] = torch.where(first[members] < 0, predicted, first[members])
    often = seen >= 2
    variance = (squares - total**2 / seen.clamp(min=1)).clamp(min=0) / (seen - 1).clamp(min=1)
    return {
        "deviation": variance[often].sqrt().mean().item(),
        "changes": changed[often].double().mean().item(),
    }


def _outputs(network: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores_of(network(pixels)).double()
    return scores.softmax(1).gather(1, labels[:, None])[:, 0], scores.argmax(1)
