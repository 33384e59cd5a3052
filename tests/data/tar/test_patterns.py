from itertools import product

import pytest

from convscope.core.errors import ConvscopeError
from convscope.data.tar.patterns import names_archives, shard_files, written_out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..2}.tar", ["0.tar", "1.tar", "2.tar"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{000..001}", ["000", "001"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}x", ["ax", "bx"]),
        ("{x}", ["{x}"]),
        ("{}", ["{}"]),
        ("{5..5}", ["5"]),
        ("{a,}.tar", ["a.tar", ".tar"]),
        ("{a..c}", ["{a..c}"]),
        ("{1..", ["{1.."]),
        ("{a,b}{1..2}", [f"{x}{y}" for x, y in product("ab", "12")]),
    ],
)
def test_braces_as_the_shell_writes_them_out(text, expected):
    assert list(written_out(text)) == expected


@pytest.mark.parametrize("text", ["{0..1000000}", "{0..999}{0..999}{0..999}", "{0..99999999999999999999}"])
def test_absurd_ranges_are_refused(text):
    with pytest.raises(ConvscopeError, match=r"at most 1,000,000 names"):
        list(written_out(text))


def test_files_by_name_range_glob_and_list(tmp_path):
    for name in ("000.tar", "001.tar", "010.tar", "{0..1}.tar", "[1].tar"):
        (tmp_path / name).touch()

    def found(*texts):
        return [file.name for file in shard_files([f"{tmp_path}/{text}" for text in texts])]

    assert found("{000..001}.tar") == ["000.tar", "001.tar"]
    assert found("0*.tar") == ["000.tar", "001.tar", "010.tar"]
    assert found("010.tar", "0*.tar") == ["010.tar", "000.tar", "001.tar"]
    assert found("{0..1}.tar") == ["{0..1}.tar"]  # a file of this name counts first
    assert found("[1].tar") == ["[1].tar"]
    assert shard_files(tmp_path / "000.tar") == [tmp_path / "000.tar"]
    with pytest.raises(ConvscopeError, match=r"no tar file '.*002.tar' \(of '.*\{000\.\.003\}"):
        shard_files(f"{tmp_path}/{{000..003}}.tar")
    with pytest.raises(ConvscopeError, match="no tar file"):
        shard_files(f"{tmp_path}/9*.tar")
    with pytest.raises(ConvscopeError, match="nothing is downloaded"):
        shard_files("https://example.org/{0..1}.tar")


def test_what_names_archives(tmp_path):
    (tmp_path / "folder.tar").mkdir()
    assert names_archives("a/{0..9}.tar")
    assert names_archives("a.tar.gz")
    assert names_archives("A.TGZ")
    assert names_archives(["a.tar", tmp_path / "b.tar"])
    assert not names_archives(tmp_path / "folder.tar")
    assert not names_archives("photos")
    assert not names_archives([])
    assert not names_archives(["a.tar", 7])
    assert not names_archives(None)
