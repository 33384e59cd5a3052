import pytest
import torch

import convscope as cs
from train.toy import SETTINGS, ToyData, toy_model


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Tiny networks gain nothing from threads, and last bits depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def whole(tmp_path_factory, _one_thread):
    """An uninterrupted run: the network, the run and its folder."""
    out = tmp_path_factory.mktemp("whole") / "run"
    model = toy_model()
    return model, cs.train(model, ToyData(), out=out, **SETTINGS), out
