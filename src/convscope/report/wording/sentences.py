"""Texts of results as sentences for readers: names stay as they are, and fields are called in words."""

import re

_OPENING = frozenset((
    "after", "all", "an", "at", "both", "by", "convolutions", "each", "epoch", "every", "fully",
    "gradients", "greying", "half", "in", "it", "its", "masking", "momentum", "no", "of", "one",
    "only", "pooling", "random", "running", "some", "that", "the", "there", "these", "this", "two",
    "with", "without"
))  # fmt: skip
_ARTICLE = re.compile(r"a (?:batch|part|penalty|radius|step)\b")
_FIELDS = {
    "allocated_peak_bytes": "the allocated peak",
    "allocated_range_bytes": "the range of the allocated peak",
    "context_bytes": "the CUDA context",
    "context_range_bytes": "the range of the context",
    "reserved_peak_bytes": "the reserved peak",
    "reserved_range_bytes": "that of the reserved one",
    "workspace_bytes": "the workspaces",
}
_FIELD = re.compile("|".join(rf"\b{name}\b" for name in _FIELDS))


def sentence(value: str) -> str:
    """Return a text with a capital letter if it begins with a word; what may be a name stays as it is.

    Example:
        >>> sentence("the loss is 3 higher"), sentence("xyz.bias can't change the loss")
        ('The loss is 3 higher', "xyz.bias can't change the loss")
    """
    opens = value.split(" ", 1)[0] in _OPENING or _ARTICLE.match(value)
    return value[:1].upper() + value[1:] if opens else value


def note(value: str) -> str:
    """Return what a forecast leaves out, with its fields in words.

    Example:
        >>> note("context_bytes: nothing was published for sm90")
        'The CUDA context: nothing was published for sm90'
    """
    text = _FIELD.sub(lambda found: _FIELDS[found[0]], value)
    return text[:1].upper() + text[1:] if text != value else text
