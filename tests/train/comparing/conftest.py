import pytest

from train.comparing.small import made


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    """A network's reference and a folder of pictures."""
    return made(tmp_path_factory.mktemp("small"))
