"""References to networks: names that are none, paths that lead nowhere, code that doesn't build a network."""

import pytest
from hypothesis import strategies as st

from fuzz.rounds import QUICK, refused
from fuzz.trial import Case
from fuzz.words import TERMINAL, TEXTS

LINES = (
    ("cost", "{}"), ("cost", "{}", "--batch", "2"), ("max-batch", "{}", "--memory", "1GiB", "--most", "4"),
    ("fold", "{}"), ("checkup", "{}"), ("gate", "{}", "--max-params", "1k"),
    ("stem", "{}", "--data", "pictures"),
    ("project", "{}", "picture.png", "--layer", "2", "--unit", "0"), ("occlusion", "{}", "picture.png"),
    ("train", "{}", "--data", "pictures", "--epochs", "1"), ("compare", "{}", "--data", "pictures", "--list"),
    ("checkup", "net.py:build", "--reference", "{}"), ("cost", "{}", "--num-classes", "3", "--norm", "batch"),
)  # fmt: skip
PARTS = r"""
timm
torchvision
hf
zfnet
alexnet
net.py
net
own.py
own
build
resnet18
resnet
os
os.path
sys
torch.nn
Linear
ReLU
exit
path
__name__
__builtins__
json
dumps
weights.safetensors
model.pt2
x.pt2
.py
pictures
..
.
/
\
:
::
~
*
ZFNET
zfnett
vit_base
_create
conv1
convscope.networks
load
1
-
a.b.c
hf:pictures
""".strip().splitlines()
HEAD = "import sys\nimport torch\nfrom torch import nn\n\n\ndef build(**options):\n    "
BODIES = r"""
return None
return 3
return nn.ReLU
return nn.ReLU(), None, None
return (nn.ReLU(),)
raise ValueError
raise ValueError('a\nb \x1b[31m')
raise KeyError('x')
sys.exit()
sys.exit(0)
sys.exit(1)
sys.exit('bye')
raise SystemExit
return build(**options)
import nothing
return nn.Conv2d(3, 4, 30)
return nn.Conv2d(5, 4, 3)
return nn.Linear(7, 2)
return torch.zeros(3)
return nn.ReLU(), (1, 'a', 3)
return nn.ReLU(), (0, 3, 8, 8)
return nn.ReLU(), (1, -3, 8, 8)
return nn.ReLU(), 'inputs'
return nn.ReLU(), {}
return nn.ReLU(), []
return nn.ReLU(), ()
return nn.ReLU(), (1,)
return nn.ReLU(), (1.5, 3)
return nn.ReLU(), (2**70, 3, 8, 8)
return nn.Sequential()
return nn.ReLU(), (True, 3, 8, 8)
return nn.Identity(), {'x': None}
return nn.Embedding(3, 2)
return nn.LSTM(3, 2)
raise ImportError('x' * 9000)
assert False
return [nn.ReLU()]
1 / 0
return nn.ModuleList([nn.ReLU()])
return nn.Module()
raise StopIteration
raise Warning('\udcff')
return torch.jit.script
raise MemoryError
return torch.empty(10**14)
""".strip().splitlines()
FORWARDS = r"""
raise ValueError('no')
return None
return 3
return 'x'
return {}
return x.nothing
return x[9]
return x.view(7, 7, 7)
return self.forward(x)
return x, None
return [x, [x, {'a': x}]]
return x.sum()
return x.long()
return x.detach()
return x.numpy()
return float(x.sum())
return x.cuda()
return torch.zeros(10**15)
return x if x.sum() > 0 else x[0]
return x[:, :, :0]
""".strip().splitlines()
FILES = (
    b"", b"build = 3\n", b"build = None\n", b"def build(: pass\n", b"\xff\xfe\x00", b"raise ValueError\n",
    b"import sys\nsys.exit(0)\n", b"def other(): pass\n", b"\0", b"build = lambda: 1/0\n",
    b"raise KeyError('build')\n",
    b"# coding: nothing\n", b"# -*- coding: utf-16 -*-\n", b"from . import x\n", b"import own.own\n",
    b"x = \xe9\n",
    b"def build(a, b): pass\n", b"class build:\n    pass\n", b"raise SystemExit(5)\n", b"build = build\n",
    b"def __getattr__(name):\n    raise ValueError(name)\n", b"(" * 300, b"x" * 50000,
    b"import torch.nothing\n",
)  # fmt: skip


@st.composite
def _named(draw):
    parts = st.sampled_from(PARTS) | st.sampled_from(TERMINAL) | st.text(max_size=4)
    joined = draw(st.sampled_from((":", ":", "", ".", "/", "::"))).join(draw(st.lists(parts, max_size=4)))
    return draw(st.sampled_from(TEXTS)) if draw(st.integers(0, 6)) == 0 else joined, {}


@st.composite
def _coded(draw):
    kind = draw(st.sampled_from(("body", "body", "forward", "file")))
    if kind == "file":
        content = draw(st.sampled_from(FILES))
    elif kind == "body":
        content = (HEAD + draw(st.sampled_from(BODIES)) + "\n").encode()
    else:
        forward = "\n\n\nclass Own(nn.Module):\n    def forward(self, x):\n        " + draw(
            st.sampled_from(FORWARDS)
        )
        content = (HEAD + "return Own(), (1, 3, 16, 16)" + forward + "\n").encode()
    return draw(st.sampled_from(("own.py:build", "own.py:build", "own:build"))), {"own.py": content}


@st.composite
def lines(draw):
    """A command, and a reference that is wrong."""
    reference, files = draw(_named() | _coded())
    words = draw(st.sampled_from(LINES))
    return Case(tuple(word if word != "{}" else reference for word in words), files)


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_references", lines(), place, share)
