"""Keys are found on the line where a reader finds them."""

import pytest

from convscope.train.comparing.toml_lines import line_of

TEXT = '''# epochs = 1
network = "zfnet"   # line 2
title = """
[settings]
epochs = 4
"""
numbers = [
  1,  # line 8
  2,
]

[settings]   # line 12
"learning_rate" = 0.1
inner.deep = 3

[[arms]]
name = "first"

[[arms]]
name = "second"
settings = { epochs = 3, lr = 0.1 }

[[arms]]
name = "third"
[arms.settings]
epochs = 9
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["network"], 2),
        (["title"], 3),
        (["numbers"], 7),
        (["settings"], 12),
        (["settings", "learning_rate"], 13),
        (["settings", "inner", "deep"], 14),
        (["arms", 0, "name"], 17),
        (["arms", 1, "settings", "lr"], 21),
        (["arms", 2, "settings", "epochs"], 26),
        (["nothing"], None),
    ],
)
def test_a_keys_line(path, line):
    assert line_of(TEXT, path) == line


def test_a_key_inside_a_list_of_tables_over_several_lines():
    text = 'arms = [\n  { name = "a" },\n  { name = "b", epohs = 3 },\n]\n'
    assert line_of(text, ["arms", 1, "epohs"]) == 3
