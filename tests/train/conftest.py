import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny networks gain nothing from threads, and sums over threads depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
