"""What a text or object names is found by what it is; what comes close is offered."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import list_pictures


@pytest.fixture
def place(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), 7, np.uint8)).save(content, "PNG")
    (tmp_path / "holiday" / "sea").mkdir(parents=True)
    (tmp_path / "holiday" / "sea" / "a.png").write_bytes(content.getvalue())
    with tarfile.open(tmp_path / "shard-0.tar", "w") as archive:
        info = tarfile.TarInfo("k.png")
        info.size = len(content.getvalue())
        archive.addfile(info, io.BytesIO(content.getvalue()))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "label"),
    [
        ("holiday", "sea/a.png", "sea"),
        ("shard-0.tar", "shard-0.tar/k.png", ""),
        ("shard-{0..0}.tar", "shard-0.tar/k.png", ""),
        ("*.tar", "shard-0.tar/k.png", ""),
    ],
)
def test_folders_and_archives_by_text_or_path(place, text, name, label):
    for given in (f"{place}/{text}", place / text):
        listing = list_pictures(given)
        assert (len(listing), listing.name(0), listing.label(0)) == (1, name, label)
        assert listing.read(0).tolist() == np.full((3, 4, 3), 7).tolist()
    assert list_pictures(listing) is listing
    if text.endswith(".tar"):
        assert list_pictures([place / text]).name(0) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("holidays", r"did you mean '.*holiday'\?"),
        ("shard-1", r"did you mean '.*shard-0.tar'"),
        ("x/y/z", "check the path"),
    ],
)
def test_what_is_not_there_is_answered_with_what_comes_close(place, text, message):
    with pytest.raises(ConvscopeError, match=message):
        list_pictures(place / text)


@pytest.mark.parametrize("given", [7, None, [], ["a.tar", 3], {"a": 1}, (Path("a"),)])
def test_other_things_are_refused(given):
    with pytest.raises(ConvscopeError, match="a folder, tar files, or a Hugging Face data set"):
        list_pictures(given)
