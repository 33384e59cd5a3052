import importlib.util

import pytest

from convscope.core.errors import ConvscopeError
from convscope.fold.export import FORMATS, check_format


@pytest.mark.parametrize("name", ["net.onnx", "NET.ONNX", "a.b/net.pt2", "net.v2.safetensors"])
def test_known_endings(name):
    assert check_format(name) in FORMATS.values()


@pytest.mark.parametrize("name", ["net", "net.pth", "net.pt", "onnx", "net.onnx.gz", "."])
def test_unknown_endings(name):
    with pytest.raises(ConvscopeError, match=r"a name that ends with \.safetensors, \.pt2, \.onnx"):
        check_format(name)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "convscope.fold.export.formats.find_spec", lambda name: None if name == "onnxscript" else real(name)
    )
    with pytest.raises(ConvscopeError, match=r"'net.onnx' without onnxscript; .*install convscope\[onnx\]"):
        check_format("net.onnx")
    assert check_format("net.pt2").has_program
