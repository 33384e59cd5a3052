"""A real browser for tests of pages: Chromium, driven by playwright. Without them, importing this skips."""

import os
import shutil
from contextlib import contextmanager

import pytest

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
NAMES = ("chromium", "chromium-browser", "google-chrome")

CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None
if CHROMIUM is None or sync_playwright is None:
    lacking = "no Chromium found" if CHROMIUM is None else "playwright isn't installed"
    if os.environ.get("CONVSCOPE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{lacking}, and CONVSCOPE_REQUIRE_BROWSER=1", pytrace=False)
    pytest.skip(f"{lacking}: the browser tests are skipped", allow_module_level=True)


@contextmanager
def launched():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched(browser, width=1280, height=900):
    """An empty page, with every request, message, error and dialog that it makes."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.seen = {"requests": [], "console": [], "errors": [], "dialogs": []}
    page.on("request", lambda request: page.seen["requests"].append(request.url))
    page.on("console", lambda message: page.seen["console"].append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: page.seen["errors"].append(str(error)))
    page.on("dialog", lambda dialog: (page.seen["dialogs"].append(dialog.message), dialog.dismiss()))
    yield page
    context.close()


def until(page, expression):
    """Wait for an expression to hold; playwright's own waiting needs eval, which the page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {expression}")


def fetched(page):
    """Addresses that the page asked for beside files and what it holds itself."""
    return [url for url in page.seen["requests"] if not url.startswith(("data:", "blob:", "file:"))]
