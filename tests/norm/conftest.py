import pytest

from convscope.norm.engine import blocks


@pytest.fixture(params=[None, 1, 7, 50], ids=lambda limit: f"blocks of {limit}" if limit else "one block")
def any_blocks(request, monkeypatch):
    """Run a test with tensors in one block and in many small ones: results must not depend on it."""
    if request.param is not None:
        monkeypatch.setattr(blocks, "BLOCK_VALUES", request.param)
