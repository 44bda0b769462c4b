"""The pages for people in a real browser.

From the server and from files, light and dark, wide and narrow, by keyboard alone, without a script, with hostile texts, and
while a build runs.
"""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from builder import events
from builder.digest import sha256_json
from tests import browser_kit, server_kit, site_events, site_house, site_kit
from tests.browser_kit import CHROMIUM, NARROW, WIDE, Place, exported, faults, tab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.server_kit import Server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browser_kit.launched() as found:
        yield found


@dataclass(frozen=True)
class Shown:
    """A wheelhouse, the pages as files, and the server of both."""

    kit: site_kit.Kit
    files: Place
    server: Place

    def place(self, name: str) -> Place:
        return self.server if name == "server" else self.files


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    root = tmp_path_factory.mktemp("site")
    kit = site_house.fill(root / "house")
    files = exported(kit, root / "files")
    with server_kit.serving(kit.root) as server:
        yield Shown(kit=kit, files=files, server=Place("server", server.url))
    kit.close()


def newest(kit: site_kit.Kit, project: str) -> str:
    return kit.house.list_wheels(project=project)[-1].sha256


def every(kit: site_kit.Kit) -> dict[str, str]:
    """A page of each kind."""
    return {
        "front": "index.html",
        "project": "projects/vllm/index.html",
        "wheel": f"wheels/{newest(kit, 'vllm')}/index.html",
        "many libraries": f"wheels/{newest(kit, 'flashinfer-jit-cache')}/index.html",
        "added": f"wheels/{newest(kit, 'torch')}/index.html",
        "builds": "builds/index.html",
        "failed": f"builds/{sha256_json({'failed': 1})}/index.html",
        "running": f"builds/{sha256_json({'live': 1})}/index.html",
        "channels": "channels/index.html",
        "channel": f"channels/{site_kit.NIGHTLY}/index.html",
        "search": "index.html?q=vllm",
        "missing": "404.html",
    }


def usable(browser: Browser, shown: Shown, where: str, scheme: str, width: int, names: set[str] | None = None) -> None:
    wrong = []
    with tab(browser, shown.place(where), width, scheme) as one:
        for name, path in every(shown.kit).items():
            if (names and name not in names) or (name == "missing" and where == "server"):
                continue
            page = one.go(path)
            page.evaluate("document.querySelectorAll('details:not([name])').forEach((each) => { each.open = true; })")
            wrong += [f"{name}: {text}" for text in faults(page)]
            if (there := page.evaluate("document.documentElement.scrollWidth")) > width:
                wrong.append(f"{name}: {there} wide on a screen of {width}")
        assert not [*wrong, *one.wrong]


@pytest.mark.parametrize(("where", "scheme", "width"), [("server", "light", WIDE), ("file", "dark", NARROW)])
def test_everybody_can_use_the_pages(browser: Browser, shown: Shown, where: str, scheme: str, width: int) -> None:
    usable(browser, shown, where, scheme, width, {"front", "wheel", "failed", "running"})


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["server", "file"])
def test_everybody_can_use_all_pages(browser: Browser, shown: Shown, where: str, scheme: str, width: int) -> None:
    usable(browser, shown, where, scheme, width)


def test_dark_is_dark_and_paper_is_white(browser: Browser, shown: Shown) -> None:
    colours = []
    for scheme in ("light", "dark"):
        with tab(browser, shown.files, scheme=scheme) as one:
            page = one.go("index.html")
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            if scheme == "dark":
                page.emulate_media(media="print", color_scheme="light")
                assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
                assert not page.locator("header nav").is_visible()
    assert colours == ["rgb(250, 250, 248)", "rgb(19, 21, 24)"]


def test_the_keyboard_reaches_everything_and_is_seen(browser: Browser, shown: Shown) -> None:
    with tab(browser, shown.server) as one:
        page = one.go(every(shown.kit)["project"])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        stops = "main a[href], main button, main summary, main [tabindex='0']"
        wanted = page.evaluate(
            "(stops) => [...document.querySelectorAll(stops)].filter((each) => each.checkVisibility()).length", stops
        )
        seen = []
        for _ in range(wanted):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate("""() => {
                    const at = document.activeElement;
                    const box = at.getBoundingClientRect();
                    const style = getComputedStyle(at.matches('svg a') ? at.querySelector('circle') : at);
                    const marked = style.outlineStyle !== 'none' || parseFloat(style.strokeWidth) === 4;
                    return [at.closest('main') !== null, marked, box.width > 0 && box.top >= 0 && box.bottom <= innerHeight];
                }""")
            )
        assert wanted > 25
        assert seen == [[True, True, True]] * wanted
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('footer') !== null")
        assert not one.wrong


@pytest.mark.parametrize("where", ["server", "file"])
def test_search_suggests_as_one_types(browser: Browser, shown: Shown, where: str) -> None:
    with tab(browser, shown.place(where)) as one:
        page = one.go(every(shown.kit)["failed"])
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "q"
        page.keyboard.type("flashinfer_j")
        box = page.get_by_role("combobox")
        page.get_by_role("option").first.wait_for()
        assert box.get_attribute("aria-expanded") == "true"
        assert faults(page) == []
        page.keyboard.press("ArrowDown")
        option = page.locator("#suggest [aria-selected=true]")
        assert option.text_content() == "flashinfer-jit-cache 0.7.2.post1package"
        assert box.get_attribute("aria-activedescendant") == option.get_attribute("id")
        page.keyboard.press("Escape")
        assert page.get_by_role("option").count() == 0
        page.keyboard.type("i")
        page.get_by_role("option").first.wait_for()
        page.keyboard.press("ArrowDown")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url == f"{one.root}projects/flashinfer-jit-cache/index.html"
        page.get_by_role("searchbox").or_(page.get_by_role("combobox")).fill(newest(shown.kit, "vllm")[:12])
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.get_by_role("heading", name="1 result").wait_for()
        assert not page.get_by_role("heading", name="Newest wheels").is_visible()
        page.locator("#found a").first.click()
        page.get_by_role("heading", name="Findings of the audit").wait_for()
        assert not one.wrong


def test_all_is_there_without_a_script(browser: Browser, shown: Shown) -> None:
    for place in (shown.server, shown.files):
        with tab(browser, place, NARROW, java_script_enabled=False) as one:
            page = one.go("index.html")
            assert page.locator("#packages li").count() == 5
            assert page.locator("button:visible").count() == 0  # nothing that would do nothing
            page.locator("#packages a", has_text="vllm").click()
            assert page.get_by_text("INDEX-ADDRESS").first.is_visible()
            page.get_by_text("pip, this very file").click()
            assert page.get_by_text("By its address and digest").is_visible()
            if place.name == "server":
                page.locator("#q").fill("triton")
                page.locator("#q").press("Enter")
                assert page.get_by_role("heading", name="results for “triton”").is_visible()
            assert not one.wrong


@pytest.mark.parametrize("where", ["server", "file"])
def test_what_is_copied_is_what_installs(browser: Browser, shown: Shown, where: str) -> None:
    with tab(browser, shown.place(where)) as one:
        if where == "server":
            one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = one.go(every(shown.kit)["wheel"])
        page.get_by_role("button", name="Copy uv command").click()
        page.get_by_text("Copied uv command").wait_for(state="attached")
        assert page.get_by_role("button", name="Copy uv command").text_content() == "Copied"
        page.locator("#q").focus()
        page.keyboard.press("ControlOrMeta+v")
        version = shown.kit.house.list_wheels(project="vllm")[-1].version
        wanted = f"uv pip install --index {one.root}{site_kit.NIGHTLY}/simple/ 'vllm=={version}'"
        assert page.locator("#q").input_value() == wanted
        page.wait_for_load_state("networkidle")  # leaving while the search reads its list is an error
        lines = one.go(every(shown.kit)["channel"]).locator("code", has_text="[[tool.uv.index]]").text_content()
        (index,) = tomllib.loads(lines or "")["tool"]["uv"]["index"]
        assert index["url"] == f"{one.root}{site_kit.NIGHTLY}/simple/"
        assert not one.wrong


def test_times_are_ages_and_dates(browser: Browser, tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house", now=time.time())
    kit.wheel("tiny", "1.0", None, days=3)
    place = exported(kit, tmp_path / "files")
    kit.close()
    with tab(browser, place) as one:
        found = one.go("projects/tiny/index.html").locator("time").first
        assert found.text_content() == "3 days ago"
        assert "UTC" in (found.get_attribute("title") or "")


@pytest.mark.parametrize("where", ["server", "file"])
def test_no_text_from_elsewhere_does_anything(browser: Browser, tmp_path: Path, where: str) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    wheel, fingerprint = site_house.hostile(kit)
    files = exported(kit, tmp_path / "files")
    with server_kit.serving(kit.root) as server:
        place = Place("server", server.url) if where == "server" else files
        paths = ["index.html", "projects/evil/index.html", f"wheels/{wheel.sha256}/index.html", "builds/index.html"]
        paths += [
            f"builds/{fingerprint}/index.html",
            f"builds/{wheel.fingerprint}/index.html",
            "channels/local/index.html",
        ]
        paths += ["index.html?q=%3Cimg%20src%3Dx%20onerror%3D%22globalThis.bad%3D1%22%3E", "index.html?q=evil"]
        with tab(browser, place, NARROW) as one:
            for path in paths:
                page = one.go(path)
                page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
                page.locator("#q").focus()
                page.locator("#q").fill("script")
                page.wait_for_timeout(60)
                assert page.evaluate("globalThis.bad") is None, path
                assert page.evaluate("document.querySelectorAll('img, main script, iframe').length") == 0, path
                assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, path
            assert not one.wrong
    kit.close()


def test_the_policy_stops_a_script_that_got_in_all_the_same(browser: Browser, shown: Shown) -> None:
    with tab(browser, shown.server) as one:
        page = one.go("index.html")
        page.evaluate("""() => {
            const script = document.createElement('script');
            script.textContent = 'globalThis.bad = 1';
            document.body.append(script);
            const evil = '<img src=x onerror="globalThis.bad = 1"><p style="color:red" id=p>x';
            document.body.insertAdjacentHTML('beforeend', evil);
        }""")
        page.wait_for_timeout(100)
        assert page.evaluate("globalThis.bad") is None
        assert page.evaluate("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
        assert any("Content Security Policy" in text for text in one.wrong)


def tell(folder: Path, *told: events.Event) -> None:
    with (folder / "events.jsonl").open("a") as stream:
        lines = events.JsonLines(stream, build="b", clock=time.time)
        for one in told:
            lines.emit(one)


def test_the_page_of_a_running_build_follows_it(browser: Browser, tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house", now=time.time())
    fingerprint = "c" * 64
    folder = kit.attempt(
        "tiny", "main", fingerprint, [(1.0, one) for one in site_events.phase("fetch", 900, "at hand")], days=0
    )
    kit.running(fingerprint)
    with server_kit.serving(kit.root) as server, tab(browser, Place("server", server.url)) as one:
        page = one.go(f"builds/{fingerprint}/index.html")
        page.get_by_text("Followed as it happens.").wait_for()
        tell(folder, events.PhaseStarted(phase="build", output="tiny", log="build.log"))
        page.locator("#phases tr", has_text="build tiny").get_by_text("running").wait_for()
        tell(folder, site_events.gate_state(5 * site_kit.GIB, 7, 33, 120, ["csrc/<b>a.cu"]))
        page.get_by_text("33 of 120 steps").wait_for()
        assert page.locator("#now-jobs").text_content() == "7 of 20"
        assert page.locator("#now-memory").text_content() == "5.0\u00a0GiB of 104\u00a0GiB"
        assert page.locator("#now-running").text_content() == "csrc/<b>a.cu 640\u00a0MiB"
        with (folder / "build.log").open("w") as log:
            log.write("[1/120] Building <script>globalThis.bad=1</script>\n")
        page.locator("#tail", has_text="[1/120] Building <script>").wait_for()
        assert faults(page) == []
        tell(folder, events.PhaseEnded(phase="build", output="tiny", status="ok", ms=61_000, text="tiny.whl"))
        page.locator("#phases tr", has_text="tiny.whl").get_by_text("1\u00a0min").wait_for()
        tell(folder, events.BuildEnded(status="ok", ms=62_000, exit_code=0))
        page.locator("#outcome").get_by_text("built").wait_for()  # loaded again, as one that has ended
        assert page.locator("#now").count() == 0
        assert page.evaluate("globalThis.bad") is None
        assert not one.wrong
    kit.close()


def test_a_follower_goes_on_when_the_server_comes_back(browser: Browser, tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house", now=time.time())
    fingerprint = "d" * 64
    folder = kit.attempt(
        "tiny", "main", fingerprint, [(1.0, one) for one in site_events.phase("fetch", 900, "at hand")], days=0
    )
    kit.running(fingerprint)
    server: Server = server_kit.started(kit.root)
    port = server.port
    with server_kit.ended(server), tab(browser, Place("server", server.url)) as one:
        page = one.go(f"builds/{fingerprint}/index.html")
        page.get_by_text("Followed as it happens.").wait_for()
        tell(folder, *site_events.phase("patch", 5, "one patch"))
        page.locator("#phases tr", has_text="one patch").wait_for()
        server.kill()
        page.get_by_text("The connection is lost; trying again.").wait_for()
        tell(folder, *site_events.phase("lock", 5, "while it was away"))
        with server_kit.ended(server_kit.started(kit.root, "--port", str(port))):
            page.locator("#phases tr", has_text="while it was away").wait_for()
            assert page.locator("#phases tbody tr").count() == 3  # nothing twice
    assert urlsplit(server.url).port == port
    kit.close()
