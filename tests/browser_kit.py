"""A real browser, and a tab of it that notes what pages shouldn't do."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.pipeline import pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests import site_kit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


#: Widths of a desk and of a phone.
WIDE, NARROW = 1280, 390


@dataclass(frozen=True)
class Place:
    """Where the pages are: what an address begins with."""

    name: str
    root: str

    def __str__(self) -> str:
        return self.name


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Give the distribution's browser."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [], timeout=60_000
        )
        yield found
        found.close()


def exported(kit: site_kit.Kit, folder: Path) -> Place:
    for path, data in pages.tree(kit.house):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return Place("file", f"{folder.as_uri()}/")


class Tab:
    """A page in the browser that notes what it shouldn't do: errors, dialogs, requests to elsewhere."""

    def __init__(self, context: BrowserContext, root: str) -> None:
        self.page: Page = context.new_page()
        self.wrong: list[str] = []
        self.root = root
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda one: self.wrong.append(f"error: {one}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)

    def _console(self, message: Any) -> None:  # noqa: ANN401  # playwright's
        if message.type in {"error", "warning"}:
            self.wrong.append(f"console: {message.text}")

    def _dialog(self, dialog: Any) -> None:  # noqa: ANN401
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:  # noqa: ANN401  # playwright's
        if not request.url.startswith((self.root, "data:")):
            self.wrong.append(f"asks elsewhere: {request.url}")

    def _failed(self, request: Any) -> None:  # noqa: ANN401
        # A stream ends with its page, and so does what a page that is left was still reading.
        if "/events?" not in request.url and request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed: {request.url}: {request.failure}")

    def go(self, path: str) -> Page:
        self.page.goto(self.root + path)
        return self.page


@contextlib.contextmanager
def tab(browser: Browser, place: Place, width: int = WIDE, scheme: str = "light", **more: Any) -> Iterator[Tab]:  # noqa: ANN401
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, **more}
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    try:
        yield Tab(context, place.root)
    finally:
        context.close()


def faults(page: Page) -> list[str]:
    """What keeps some people from using a page: axe's serious and critical findings."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # noqa: PLC0415

    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
