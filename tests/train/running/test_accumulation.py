import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.running.accumulation import check_accumulation, micro_batches, num_micro_batches


@pytest.mark.parametrize(("images", "count"), [(8, 1), (8, 4), (7, 3), (11, 4), (2, 1)])
def test_micro_batches_are_the_whole_share_in_nearly_equal_parts(images, count):
    pixels, labels = torch.randn(images, 1, 2, 2), torch.arange(images)
    parts = list(micro_batches(pixels, labels, count))
    sizes = [len(part) for _, part in parts]
    assert len(parts) == count
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([part for part, _ in parts]), pixels)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_every_micro_batch_of_every_process_has_two_images(processes, accumulation):
    for batch_size in range(2 * processes, 40):
        count = num_micro_batches(batch_size, processes, accumulation)
        for rank in range(processes):
            share = batch_size * (rank + 1) // processes - batch_size * rank // processes
            assert (
                min(len(part) for _, part in micro_batches(torch.zeros(share), torch.zeros(share), count))
                >= 2
            )
        assert count == accumulation or (count + 1) * 2 * processes > batch_size


def test_too_small_micro_batches_are_refused():
    check_accumulation(TrainConfig(batch_size=1), 1)
    check_accumulation(TrainConfig(batch_size=16, accumulation=4), 2)
    message = r"batch_size=15 in 4 micro-batches on 2 process\(es\); .* set batch_size to 16 or more"
    with pytest.raises(ConvscopeError, match=message):
        check_accumulation(TrainConfig(batch_size=15, accumulation=4), 2)
