"""The page's memory section says what its numbers are forecasts of, on either kind of device."""

from dataclasses import replace

import pytest

from convscope.report.pages.report import page_html


def section(report, device):
    forecast = replace(report.cost.forecast, device=device)
    page = page_html(replace(report, cost=replace(report.cost, forecast=forecast), published=None))
    return page.split('<section id="memory"')[1].split("</section>")[0]


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False)])
def test_only_a_cuda_devices_peak_is_what_torch_cuda_says(report, device, expected):
    html = section(report, device)
    assert ("torch.cuda.max_memory_allocated" in html) == expected
    assert ("most that tensors take at once" in html) != expected
