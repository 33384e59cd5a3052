import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.fold import Folded, fold
from convscope.fold.export import Exported, export
from zoo import staged

ENDINGS = (".safetensors", ".pt2", ".onnx")
PROGRAMS = ENDINGS[1:]
SHAPE = (2, 3, 9, 7)


def net():
    """All of its batch norms fold; it has dropout, and convolutions that have and haven't a bias."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=4, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5),
        nn.Conv2d(8, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


def reload(path, folded):
    """What a user would run a written file by."""
    if path.suffix == ".safetensors":
        fresh = copy.deepcopy(folded.model)
        for tensor in fresh.state_dict().values():
            tensor.fill_(float("nan"))
        fresh.load_state_dict(load_file(path))
        return fresh.eval()
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@dataclass(frozen=True)
class Written:
    """One file, how it came to be, and what the networks were like before and after."""

    original: nn.Module
    folded: Folded
    exported: Exported
    path: Path
    before: tuple
    after: tuple


WRITTEN = {}


@pytest.fixture(params=ENDINGS)
def written(request, tmp_path_factory, randomised):
    """A file of each format, of a network whose dropout is on; written once for all tests."""
    if request.param not in WRITTEN:
        original = randomised(net()).train()
        original[1].eval()
        original[4].eval()
        x = torch.randn(SHAPE)
        folded = fold(original, x)
        before = state_of(original), state_of(folded.model)
        path = tmp_path_factory.mktemp("written") / f"folded{request.param}"
        exported = export(folded, original, x, path)
        after = state_of(original), state_of(folded.model)
        WRITTEN[request.param] = Written(original, folded, exported, path, before, after)
    return WRITTEN[request.param]


def test_a_file_is_the_original_network(written):
    assert written.folded.ledger.folded == 2
    run, exact = reload(written.path, written.folded), copy.deepcopy(written.original).double().eval()
    for batch in (2, 1, 5):
        x = torch.randn(batch, *SHAPE[1:])
        with torch.no_grad():
            y = exact(x.double())
            assert ((run(x) - y).abs().max() / y.abs().max()).item() < 1e-5
    exported = written.exported
    assert exported.any_batch
    assert exported.sizes == (() if written.path.suffix == ".safetensors" else ((None, *SHAPE[1:]),))
    assert exported.num_bytes == written.path.stat().st_size
    assert exported.max_error <= exported.allowed == 1e-4
    assert exported.checked_with
    assert "(2, 3, 9, 7)" in exported.trials
    assert list(written.path.parent.iterdir()) == [written.path]


def test_both_networks_stay(written):
    assert written.before == written.after


def test_dropout_is_off_in_a_program(written):
    run, x = reload(written.path, written.folded), torch.randn(SHAPE)
    with torch.no_grad():
        assert torch.equal(run(x), run(x))
        assert not torch.equal(written.original(x), written.original(x))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_differs_is_never_there(ending, tmp_path, randomised):
    original = randomised(net()[:2])
    folded = fold(original, SHAPE)
    with torch.no_grad():
        folded.model[0].weight[1, 0, 1, 1] += 0.05
    kept = state_of(original), state_of(folded.model)
    path = tmp_path / f"folded{ending}"
    path.write_text("an older file")
    with pytest.raises(ConvscopeError, match=r"outputs differ from the original's by .*, more than 1\.0e-04"):
        export(folded, original, SHAPE, path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {path.name: "an older file"}
    assert (state_of(original), state_of(folded.model)) == kept


class Two(nn.Module):
    """Two inputs by name, of which one has no batch, and a nested output."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, *, offset, image):
        y = self.bn(self.conv(image))
        return {"maps": (y, y.relu()), "sum": y.mean((2, 3)) - offset}


@pytest.mark.parametrize("ending", PROGRAMS)
def test_inputs_by_name_in_any_order(ending, tmp_path, randomised):
    original = randomised(Two())
    inputs = {"image": torch.randn(3, 3, 6, 5), "offset": torch.arange(4.0)}
    exported = export(fold(original, inputs), original, inputs, tmp_path / f"folded{ending}")
    assert exported.any_batch
    assert sorted(exported.sizes, key=len) == [(4,), (None, 3, 6, 5)]
    assert exported.trials == (
        "(3, 3, 6, 5), (4,)", "(3, 3, 6, 5), (4,)", "(4, 3, 6, 5), (4,)", "(1, 3, 6, 5), (4,)"
    )  # fmt: skip


class Fixed(nn.Sequential):
    def forward(self, x):
        return super().forward(x).reshape(2, -1)


class Deciding(nn.Sequential):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize("ending", PROGRAMS)
def test_a_network_for_one_batch_is_written_for_that(ending, tmp_path, randomised):
    original = randomised(Fixed(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    exported = export(fold(original, SHAPE), original, SHAPE, tmp_path / f"folded{ending}")
    assert not exported.any_batch
    assert exported.sizes == (SHAPE,)
    assert exported.trials == ("(2, 3, 9, 7)", "(2, 3, 9, 7)")


@pytest.mark.parametrize("ending", PROGRAMS)
def test_what_can_not_be_traced_is_one_line(ending, tmp_path, randomised):
    original = randomised(Deciding(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold(original, SHAPE)
    with pytest.raises(ConvscopeError, match=r"Deciding can't be exported to .*data-dependent.*safetensors"):
        export(folded, original, SHAPE, tmp_path / f"folded{ending}")
    assert not list(tmp_path.iterdir())
    assert export(folded, original, SHAPE, tmp_path / "folded.safetensors").any_batch


def test_half_precision_has_its_own_yardstick(tmp_path, randomised):
    original = randomised(net()).half()
    folded = fold(original, SHAPE)
    for ending in (".safetensors", ".pt2"):
        exported = export(folded, original, SHAPE, tmp_path / f"folded{ending}")
        assert 1e-5 < exported.own_error < 1e-2
        assert exported.allowed == 30 * exported.own_error


def test_a_dtype_that_a_runtime_lacks_is_one_line(tmp_path, randomised):
    original = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).double()
    with pytest.raises(ConvscopeError, match=r"can't be exported to .*Conv.*; make it float32 first"):
        export(fold(original, SHAPE), original, SHAPE, tmp_path / "folded.onnx")
    assert not list(tmp_path.iterdir())


def test_without_a_runtime_a_graph_is_written_unchecked(tmp_path, monkeypatch, randomised):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    original = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    exported = export(fold(original, SHAPE), original, SHAPE, tmp_path / "folded.onnx")
    assert (exported.checked_with, exported.max_error, exported.trials) == ("", None, ())
    assert (tmp_path / "folded.onnx").exists()


def test_a_fold_without_proof_is_refused(tmp_path, monkeypatch, randomised):
    original = randomised(net())
    folded = fold(original, SHAPE)
    object.__setattr__(folded.proof, "passed", False)
    with pytest.raises(ConvscopeError, match="a fold whose proof failed"):
        export(folded, original, SHAPE, tmp_path / "folded.pt2")


def test_own_header(tmp_path, randomised):
    original = randomised(net())

    def writer(network, path):
        from safetensors.torch import save_file

        with whole_file(path) as temporary:
            save_file(network.state_dict(), temporary, {"mine": "yes"})

    export(fold(original, SHAPE), original, SHAPE, tmp_path / "a.safetensors", weights_writer=writer)
    assert metadata_of(tmp_path / "a.safetensors") == {"mine": "yes", "convscope.folded": "true"}


def metadata_of(path):
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return file.metadata()
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    found = {"convscope.folded": "", "mine": ""}
    torch.export.load(path, extra_files=found)
    return {name: value if isinstance(value, str) else value.decode() for name, value in found.items()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_metadata_say_that_the_network_is_folded_and_what_the_caller_adds(ending, tmp_path, randomised):
    original = randomised(net())
    path = tmp_path / f"a{ending}"
    export(fold(original, SHAPE), original, SHAPE, path, metadata={"mine": "σ", "convscope.folded": "no"})
    assert metadata_of(path) == {"mine": "σ", "convscope.folded": "true"}


@pytest.mark.parametrize("given", [lambda folded: folded.model, lambda folded: folded.ledger])
def test_what_is_no_fold_is_one_line(given, tmp_path, randomised):
    original = randomised(net())
    folded = fold(original, SHAPE)
    with pytest.raises(ConvscopeError) as caught:
        export(given(folded), original, SHAPE, tmp_path / "a.pt2")
    wanted = "expected what cs.fold returned"
    assert wanted + (", not its .model" if given(folded) is folded.model else "") in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tied_weights_and_inference_mode(tmp_path, randomised):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(self.bn(self.conv(x)).mean((2, 3))))

    original = randomised(Tied())
    with torch.inference_mode():
        folded = fold(original, SHAPE)
        for ending in ENDINGS:
            assert export(folded, original, SHAPE, tmp_path / f"folded{ending}").max_error < 1e-5


# Gates, merged branches, attention; resnet18 has no operator of its own, and densenet121 121 batch norms.
@pytest.mark.parametrize(
    "name",
    staged(
        ["resnet18", "densenet121", "mobilenetv3_small_050", "repvgg_a0", "levit_128s"],
        brief=["mobilenetv3_small_050", "repvgg_a0", "levit_128s"],
    ),
)
def test_networks_of_the_zoo(name, tmp_path, randomised):
    import timm

    size = 224 if name.startswith("levit") else 64
    original = randomised(timm.create_model(name))
    for module in original.modules():  # keep the activations' size
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_var.fill_(1).mul_(torch.linspace(0.8, 1.2, module.num_features))
    folded = fold(original, (1, 3, size, size))
    for ending in ENDINGS:
        exported = export(folded, original, (1, 3, size, size), tmp_path / f"folded{ending}")
        assert exported.any_batch
        assert exported.max_error < 1e-4
