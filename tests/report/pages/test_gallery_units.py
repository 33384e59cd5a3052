"""What a gallery's page says of units of all kinds, beside what the data say, counted again here."""

from dataclasses import replace

import pytest

from browser import launched, until, watched
from convscope.sight.picturing.folder import write_index
from convscope.sight.projecting.projection import Box, Census, Scores

pytestmark = pytest.mark.browser
BEHIND_POOL = Census(("relu#1",), (), (), ("pool#1",), (), (), 3, 2)
NAME = "a & b &amp; </script><!-- ${1} \u202e ' \" \u2028"


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


def score(unit, factor):
    """Numbers without an order, on both sides of all limits."""
    return (unit * factor % 31 - 4) / 31


@pytest.fixture(scope="module")
def varied(gallery, tmp_path_factory):
    """A layer with units of every kind, and one whose units are all dead."""
    layer = gallery.layers[0]
    example = replace(
        next(unit for unit in layer.units if unit.examples).examples[0],
        name=NAME, position=(11, 12), box=Box(1, 2, 33, 44),
    )  # fmt: skip
    units = []
    for index in range(31):
        dead = index % 9 == 5
        units.append(replace(
            layer.units[0], index=index, dead=dead, near_dead=index % 7 == 2 and not dead,
            always_on=index % 11 == 3 and not dead, maximum=0.0 if dead else 1 + index * 13 % 31,
            minimum=-0.125, mean=0.25 + index, active_images=0.0 if dead else (1 + index * 17 % 31) / 40,
            active_positions=0.0 if dead else (1 + index * 19 % 31) / 70,
            scores=None if dead or index == 30 else Scores(
                score(index, 3), max(0.0, score(index, 5)), score(index, 11), score(index, 23)
            ),
            examples=() if dead else (example, replace(example, name="", image=77)),
        ))  # fmt: skip
    units[0] = replace(units[0], active_images=1e-6, active_positions=0.99999, scores=Scores(*[None] * 4))
    first = replace(
        layer, name="3", units=tuple(units), census=BEHIND_POOL, projected=None, selectivity=0.111,
        image_dependence=0.222, randomisation=0.333, masking_drop=0.444,
    )  # fmt: skip
    silent = tuple(replace(unit, index=i, dead=True) for i, unit in enumerate(units[:12]))
    folder = tmp_path_factory.mktemp("varied")
    found = replace(gallery, layers=(first, replace(first, name="6", units=silent)), image_size=(60, 70))
    write_index(found, folder)
    return replace(found, folder=str(folder))


@pytest.fixture
def opened(chromium, varied):
    with watched(chromium, height=3000) as page:
        page.goto(f"file://{varied.folder}/index.html")
        until(page, "document.querySelectorAll('.slot').length > 0")
        yield page
        assert page.seen["errors"] == page.seen["dialogs"] == []


def numbers(page):
    return [int(text.split()[1]) for text in page.locator(".slot .head b").all_inner_texts()]


FILTERS = {
    "dead": lambda u: u.dead,
    "near-dead": lambda u: u.near_dead,
    "always-on": lambda u: u.always_on,
    "selective": lambda u: known(u, "selectivity") and u.scores.selectivity >= 0.2,
    "image-dependent": lambda u: known(u, "image_dependence") and u.scores.image_dependence >= 0.05,
    "sensitive": lambda u: known(u, "randomisation") and u.scores.randomisation >= 0.1,
    "confirmed": lambda u: known(u, "masking_drop") and u.scores.masking_drop > 0,
    "doubted": lambda u: known(u, "selectivity") and doubts(u) > 0,
}


def known(unit, name):
    return unit.scores is not None and getattr(unit.scores, name) is not None


def doubts(unit):
    s = unit.scores
    if not known(unit, "selectivity"):
        return 0
    return (
        (s.selectivity < 0.2) + (s.image_dependence < 0.05) + (s.randomisation < 0.1) + (s.masking_drop <= 0)
    )


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_says_how_many_units_it_leaves_and_leaves_them(opened, varied, name):
    units = varied.layers[0].units
    expected = [unit.index for unit in units if FILTERS[name](unit)]
    assert 0 < len(expected) < len(units)
    assert opened.locator(f"[data-filter={name}] .n").inner_text() == str(len(expected))
    opened.locator(f"[data-filter={name}]").click()
    assert numbers(opened) == expected
    assert opened.locator("#unit-count").inner_text() == f"{len(expected)} of 31 units"


ORDERS = {
    "index": (lambda u: u.index, False),
    "maximum": (lambda u: u.maximum, True),
    "active_images": (lambda u: u.active_images, True),
    "active_positions": (lambda u: u.active_positions, False),
    **{
        name: (lambda u, name=name: getattr(u.scores, name) if known(u, name) else None, True)
        for name in ("selectivity", "image_dependence", "randomisation", "masking_drop")
    },
    "doubts": (doubts, True),
}


def test_every_order_is_that_of_its_number(opened, varied):
    living = [unit for unit in varied.layers[0].units if not unit.dead]
    offered = opened.eval_on_selector_all("#unit-order option", "all => all.map((each) => each.value)")
    assert offered == list(ORDERS)
    for name, (of, falling) in ORDERS.items():
        opened.locator("#unit-order").select_option(name)
        with_it = [unit for unit in living if of(unit) is not None]
        expected = sorted(with_it, key=of, reverse=falling)  # stable: ties stay in order, also reversed
        without = [unit for unit in living if of(unit) is None]
        assert numbers(opened) == [unit.index for unit in expected + without], name


def test_what_stands_under_a_name_is_the_number_of_that_name(opened, varied):
    unit = varied.layers[0].units[8]
    expected = {
        "largest": unit.maximum, "mean": unit.mean, "active in": f"{100 * unit.active_images:.1f} %",
        "active at": f"{100 * unit.active_positions:.1f} %", "selectivity": unit.scores.selectivity,
        "image dep.": unit.scores.image_dependence, "random.": unit.scores.randomisation,
        "masking": unit.scores.masking_drop,
    }  # fmt: skip
    card = opened.locator("[aria-posinset='8'] .unit-card")
    assert card.locator("b").inner_text() == "unit 8"
    agree(dict(text.split("\n") for text in card.locator(".labelled").all_inner_texts()), expected)
    said = card.get_attribute("aria-label")
    assert said.startswith(f"unit 8: largest activation {unit.maximum:g}, active in {expected['active in']}")
    card.click()
    assert opened.locator("dialog h3").inner_text() == "layer 3, unit 8"
    pairs = opened.locator("dialog dl.facts > div").all_inner_texts()
    shown = {key.lower(): value for key, value in (text.split("\n") for text in pairs)}
    agree(shown, {**dict(list(expected.items())[:4]), "smallest": unit.minimum})
    rows = [[cell.split("\n")[0] for cell in row.split("\t")] for row in
            opened.locator("dialog .scroll").first.locator("tbody tr").all_inner_texts()]  # fmt: skip
    cells = opened.locator("dialog .scroll").first.locator("tbody tr td:nth-child(2)").all_inner_texts()
    names = [row[0] for row in rows]
    assert names == ["selectivity", "image dependence", "randomisation", "masking drop"]
    agree(dict(zip(names, cells, strict=True)), dict(zip(names, list(expected.values())[4:], strict=True)))


def agree(shown, expected):
    assert list(shown) == list(expected)
    for name, value in expected.items():
        if isinstance(value, str):
            assert shown[name] == value
        else:
            assert float(shown[name].replace("−", "-")) == pytest.approx(value, rel=5e-3), name


def test_each_image_has_its_rank_its_name_as_it_is_and_its_window(opened):
    opened.locator(".unit-card").first.click()
    rows = opened.locator("dialog .scroll").nth(1).locator("tbody tr")
    cells = rows.first.locator("th, td").evaluate_all("all => all.map((each) => each.textContent)")
    assert [cells[0], cells[1], *cells[3:]] == ["1", NAME, "11, 12", "1 to 33", "2 to 44"]
    assert rows.nth(1).locator("td").first.inner_text() == "image 77"
    assert "Positive in 2 of the images only" in opened.locator("#unit-detail").inner_text()


def test_what_is_nearly_nothing_or_all_does_not_look_like_it(opened):
    texts = opened.locator("[aria-posinset='1'] .labelled").all_inner_texts()
    assert texts[2:4] == ["active in\n< 0.01 %", "active at\n> 99.9 %"]
    opened.locator(".unit-card").first.click()
    assert "the projection is zero everywhere" in opened.locator("#unit-detail").inner_text()


def test_a_layer_s_counts_and_medians_are_those_of_its_units(opened, varied):
    units = varied.layers[0].units
    field = " × ".join(map(str, varied.layers[0].receptive_field.size))
    texts = opened.locator("#layer-facts dl > div").all_inner_texts()
    assert [" ".join(text.split("\n")) for text in texts] == [
        "Units 31", f"Dead {sum(u.dead for u in units)}", f"Near-dead {sum(u.near_dead for u in units)}",
        f"Always on {sum(u.always_on for u in units)}",
        f"Map {' × '.join(map(str, varied.layers[0].map_size))}", f"Sees {field} of 60 × 70 px",
        f"Medians of {sum(u.scores is not None for u in units)} scored units:",
        "selectivity 0.111", "image dependence 0.222", "randomisation 0.333", "masking drop 0.444",
    ]  # fmt: skip


def test_dead_units_are_shown_where_there_are_no_others_or_one_is_asked_for(opened):
    count = opened.locator("#unit-count")
    assert count.inner_text() == "28 of 31 units; 3 dead ones aren’t shown"
    opened.locator("#unit-search").fill("5")
    until(opened, "document.querySelectorAll('.slot').length === 1")
    assert (numbers(opened), count.inner_text()) == ([5], "1 of 31 units")
    opened.locator("#unit-search").fill("no such image")
    until(opened, "document.querySelectorAll('.slot').length === 0")
    assert count.inner_text() == "0 of 31 units have all that is asked for"
    opened.locator("#unit-search").fill("")
    opened.locator("#tab-1").click()
    until(opened, "document.querySelectorAll('.slot').length === 12")
    assert count.inner_text() == "12 of 12 units"


def test_buttons_lead_to_the_next_unit_and_out(opened):
    opened.locator(".unit-card").nth(1).click()
    title = opened.locator("dialog h3")
    opened.locator("#unit-next").click()
    assert title.inner_text() == "layer 3, unit 2"
    opened.locator("#unit-previous").click()
    opened.locator("#unit-previous").click()
    assert title.inner_text() == "layer 3, unit 0"
    assert opened.locator("#unit-previous").is_disabled()
    opened.locator("#unit-close").click()
    assert opened.locator("dialog[open]").count() == 0


def test_cards_stand_in_the_document_as_they_are_seen(opened):
    opened.set_viewport_size({"width": 1200, "height": 500})
    reading = "all => all.map((each) => Number(each.ariaPosInSet))"
    for y in (3000, 1800, 900, 0):  # some of those made before are still near the view
        opened.evaluate(f"scrollTo({{top: {y}, behavior: 'instant'}})")
        opened.wait_for_timeout(100)
        positions = opened.eval_on_selector_all(".slot", reading)
        assert positions == sorted(positions)
    assert positions[0] == 1
