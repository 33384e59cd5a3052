"""What kernels take, and what they leave to PyTorch's operators."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import convscope.norm as norm
from convscope.norm import BatchNorm2d, BatchNormAct2d, kernels
from convscope.norm.fast import choosing
from convscope.norm.fast.choosing import takes

needs_numba = pytest.mark.skipif(not choosing._is_installed("numba"), reason="numba isn't installed")
BATCH = (8, 16, 16, 16)  # 2**15 values


def by_rows(*size):
    return torch.randn(size).movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.fixture
def runs(monkeypatch):
    """How often kernels ran, by name; from numba or not."""
    from convscope.norm.fast.cpu import run

    counts = {"forward": 0, "backward": 0}

    def counting(name, kernel):
        def count(*args):
            counts[name] += 1
            return kernel(*args)

        return count

    for name in counts:
        monkeypatch.setattr(run, name, counting(name, getattr(run, name)))
    return counts


@needs_numba
@pytest.mark.parametrize(
    ("x", "taken"),
    {
        "maps": (torch.randn(BATCH), True),
        "one value fewer": (torch.randn(1, 1, 2**15 - 1), False),
        "just enough": (torch.randn(1, 1, 2**15), True),
        "bfloat16": (torch.randn(BATCH).bfloat16(), True),
        "float16": (torch.randn(BATCH).half(), False),
        "float64": (torch.randn(BATCH).double(), False),
        "integers": (torch.zeros(BATCH, dtype=torch.int32), False),
        "complex": (torch.zeros(BATCH, dtype=torch.complex64), False),
        "channels_last": (by_rows(*BATCH), True),
        "channels_last, 15 channels": (by_rows(16, 15, 16, 16), False),
        "contiguous, 15 channels": (torch.randn(16, 15, 16, 16), True),
        "features": (torch.randn(2048, 16), True),
        "15 features": (torch.randn(4096, 15), False),
        "sequences": (torch.randn(8, 16, 256), True),
        "sequences by rows": (by_rows(8, 16, 256), True),
        "volumes by rows": (by_rows(8, 16, 4, 8, 8), True),
        "a vector": (torch.randn(2**16), False),
        "a parameter": (nn.Parameter(torch.randn(BATCH)), True),
        "some samples": (torch.randn(16, *BATCH[1:])[3:11], True),
        "every second sample": (torch.randn(16, *BATCH[1:])[::2], False),
        "some channels": (torch.randn(8, 32, 16, 16)[:, :16], False),
        "some features": (torch.randn(2048, 32)[:, :16], False),
        "some columns": (torch.randn(8, 16, 16, 32)[..., 3:19], False),
        "transposed maps": (torch.randn(BATCH).transpose(2, 3), False),
        "transposed features": (torch.randn(16, 2048).t(), False),
        "expanded": (torch.randn(8, 16, 1, 1).expand(BATCH), False),
        "sizes of 1": (torch.randn(1, 2**10, 2**6, 1), True),
        "one pixel, some": (torch.randn(2**12, 16, 2, 1)[:, :, :1], False),
        "simulated without memory": (torch.empty(BATCH, device="meta"), False),
        "no tensor": (None, False),
        "nothing": (torch.empty(0, 16, 16, 16), False),
    }.values(),
)
def test_shapes_dtypes_and_layouts(x, taken):
    assert takes(x) is taken


class Recorder(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Knowing(Recorder):
    knows_kernels = True


class Own(torch.Tensor):
    pass


scripts = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@needs_numba
@scripts
def test_nothing_that_looks_at_operators_or_transforms_them():
    x = torch.randn(BATCH)
    assert takes(x)
    with Recorder():
        assert not takes(x)
    with Knowing():
        assert takes(x)
        with Recorder():
            assert not takes(x)
    assert takes(x)
    with FakeTensorMode() as mode:
        assert not takes(mode.from_tensor(x))
        assert not takes(torch.empty(BATCH))
    assert not takes(mode.from_tensor(x))  # nor outside
    assert not takes(x.as_subclass(Own))
    seen = []

    def look(x):
        seen.append(takes(x))
        return x.sum()

    torch.func.grad(look)(x)
    torch.func.jvp(look, (x,), (x,))
    torch.func.vmap(look)(torch.stack([x, x]))
    torch.func.functionalize(look)(x)
    assert seen == [False] * 4
    assert takes(x)


@needs_numba
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*:DeprecationWarning")
def test_compiled_code_has_none(runs):
    layer = BatchNormAct2d(16)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    y = compiled(torch.randn(BATCH))
    assert runs["forward"] == 0
    assert y.shape == BATCH
    layer(torch.randn(BATCH))
    assert runs["forward"] == 1


@needs_numba
def test_off_and_on_again_nested_after_exceptions_and_in_threads():
    x = torch.randn(BATCH)
    with kernels(enabled=False):
        assert not takes(x)
        with kernels(enabled=True):
            assert takes(x)
            with pytest.raises(ZeroDivisionError), kernels(enabled=False):
                assert not takes(x)
                raise ZeroDivisionError
            assert takes(x)
        assert not takes(x)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(takes(x)))
        thread.start()
        thread.join()
        assert answers == [False]
    assert takes(x)
    assert norm.kernels is kernels


@needs_numba
def test_off_leaves_the_layers_to_pytorchs_operators(runs):
    layer, x = BatchNormAct2d(16), torch.randn(BATCH, requires_grad=True)
    with kernels(enabled=False):
        layer(x).sum().backward()
    assert runs == {"forward": 0, "backward": 0}
    layer(x).sum().backward()
    BatchNorm2d(16)(x).sum().backward()
    assert runs == {"forward": 2, "backward": 2}
    layer.eval()(x).sum().backward()
    assert runs == {"forward": 2, "backward": 2}


@pytest.fixture
def asked_anew():
    choosing._has_numba.cache_clear()
    choosing._is_installed.cache_clear()
    yield
    choosing._has_numba.cache_clear()
    choosing._is_installed.cache_clear()


def test_without_numba(asked_anew, monkeypatch):
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    x = torch.randn(BATCH)
    assert not takes(x)
    torch.testing.assert_close(BatchNormAct2d(16)(x), nn.BatchNorm2d(16)(x).relu())


def test_a_numba_that_cannot_be_imported_is_reported_once(asked_anew, monkeypatch):
    def fails(name):
        raise ImportError("Numba needs NumPy 2.2 or less")

    monkeypatch.setattr(choosing, "find_spec", lambda name: name)
    monkeypatch.setattr(choosing, "import_module", fails)
    with pytest.warns(UserWarning, match=r"numba .* can't be imported .*NumPy 2.2 or less"):
        assert not takes(torch.randn(BATCH))
    assert not takes(torch.randn(BATCH))


PROGRAM = """
import sys, torch
import convscope
from convscope.norm import BatchNormAct2d
from convscope.norm.fast.choosing import takes
assert "numba" not in sys.modules
x = torch.ones(8, 16, 16, 16)
BatchNormAct2d(16)(torch.ones(2, 16, 2, 2))
assert "numba" not in sys.modules
print(takes(x))
"""


@needs_numba
@pytest.mark.parametrize(("value", "taken"), [("Off", "False"), (None, "True")])
def test_the_variable_decides_for_a_process_and_numba_waits_to_be_imported(value, taken):
    variables = {key: text for key, text in os.environ.items() if key != "CONVSCOPE_KERNELS"}
    if value is not None:
        variables["CONVSCOPE_KERNELS"] = value
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == taken


NOWHERE = """
import torch
from numba.core import caching

def ensure_cache_path(self):
    raise OSError("read-only")

for locator in caching.CacheImpl._locator_classes:
    locator.ensure_cache_path = ensure_cache_path
from convscope.norm import BatchNormAct2d
x = torch.linspace(-1, 1, 2**15).view(8, 16, 16, 16)
print(BatchNormAct2d(16)(x).double().sum().item())
"""


@needs_numba
@pytest.mark.slow
def test_kernels_are_compiled_where_nothing_can_be_written():
    ended = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    x = torch.linspace(-1, 1, 2**15).view(BATCH)
    assert float(ended.stdout) == pytest.approx(nn.BatchNorm2d(16)(x).relu().double().sum().item(), rel=1e-6)


CACHED = """
import torch
from convscope.norm.fast.activation import Piecewise
from convscope.norm.fast.cpu import columns, planes, rows, run

for size in ((2, 3, 10, 10), (2, 3, 5, 5), (8, 16)):
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(size).to(dtype)
        y, *statistics = run.forward(x, None, None, 1e-5, Piecewise())
        run.apply(x, None, None, statistics, 1e-5, Piecewise())
        run.backward(y, x, None, None, statistics, 1e-5, Piecewise())
every = {one for file in (planes, columns, rows) for one in vars(file).values() if hasattr(one, "stats")}
kernels = [one for one in every if one.stats.cache_path is not None]
print(sum(sum(one.stats.cache_misses.values()) for one in kernels))
print(sum(sum(one.stats.cache_hits.values()) for one in kernels))
"""


@needs_numba
@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    """Kernels with a float32 and a bfloat16 form each, and three that see no batch."""
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    counts = []
    for _ in range(2):
        command = [sys.executable, "-c", CACHED]
        ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, ended.stderr
        counts.append([int(count) for count in ended.stdout.split()])
    assert counts[0][0] == counts[1][1] >= 2 * (3 + 2 + 4) + 3
    assert counts[0][1] == counts[1][0] == 0


@scripts
def test_forward_mode_differentiation_is_refused_as_without_kernels():
    x = torch.randn(BATCH)

    def differentiate():
        with forward_ad.dual_level(), pytest.raises((NotImplementedError, RuntimeError)):
            BatchNorm2d(16)(forward_ad.make_dual(x, x))

    differentiate()
    with kernels(enabled=False):
        differentiate()
