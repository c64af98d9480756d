"""A real browser, driven through Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}


class Browser:
    """Chromium without a window; its pages have no network, and nothing that they complain of is overlooked."""

    def __init__(self, program: str) -> None:
        self._driver = sync_playwright().start()
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._browser = self._driver.chromium.launch(executable_path=program, args=flags)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._driver.stop()

    @contextmanager
    def page(self, path: Path, fragment: str = "", **options: Any) -> Iterator[Page]:
        """The file opened; at the end of the block the page must have had no complaint and have asked for nothing.

        Args:
            path: an HTML file.
            fragment: what stands behind the `#` of the URL.
            options: of Playwright's `new_context`.
        """
        context = self._browser.new_context(**{"offline": True, "viewport": WIDE, **options})
        page, complaints, asked = context.new_page(), list[str](), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri() + (f"#{fragment}" if fragment else ""))
        try:
            yield page
        finally:
            context.close()
        assert not complaints, "\n".join(complaints)
        others = {url for url in asked if not url.startswith("data:") and url.partition("#")[0] != path.as_uri()}
        assert not others, f"the page asked for {', '.join(sorted(others))}"
