"""The data that a page holds: as it is, or compressed where it is large."""

import base64
import gzip
import json
import re

from convscope.report.pages.fields import script_json
from convscope.report.pages.offline import data_element


def test_small_data_stand_as_they_are():
    data = {"name": "</script><b>", "values": [1, 2]}
    element = str(data_element(script_json(data)))
    (text,) = re.fullmatch(r'<script type="application/json" id="data">(.*?)</script>', element).groups()
    assert json.loads(text) == data


def test_large_data_are_compressed():
    data = {"name": "</script>", "values": list(range(100_000))}
    text = script_json(data)
    element = str(data_element(text))
    (packed,) = re.fullmatch(
        r'<script type="text/plain" id="data" data-packed="gzip">([A-Za-z0-9+/=]+)</script>', element
    ).groups()
    assert json.loads(gzip.decompress(base64.b64decode(packed))) == data
    assert len(element) < len(text) / 2
