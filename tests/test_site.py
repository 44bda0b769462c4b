"""The pages for people as text: what they say, that nothing of it is markup, and that every link leads somewhere."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tomllib
from html import unescape
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import signature
from builder.pipeline import pages
from builder.site.html import h, safe_url, visible
from builder.wheelhouse import Wheelhouse, channel, states
from tests import site_events, site_house, site_kit
from tests.site_page import Page

if TYPE_CHECKING:
    from pathlib import Path


def parsed(tree: dict[str, bytes]) -> dict[str, Page]:
    return {path: Page(data) for path, data in tree.items() if path.endswith(".html")}


def resolved(path: str, link: str) -> str:
    """Where a relative link on the page at `path` leads, below the root."""
    parts_ = [*path.split("/")[:-1], *link.partition("?")[0].partition("#")[0].split("/")]
    kept: list[str] = []
    for part in parts_:
        if part == "..":
            kept.pop()
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


# --- all pages


def test_every_page_is_sound_and_can_be_found_ones_way_in(site_tree: dict[str, bytes]) -> None:
    for path, page in parsed(site_tree).items():
        assert not page.wrong, path
        ids = page.attribute("id")
        assert len(ids) == len(set(ids)), path
        levels = [int(tag[1]) for tag, _attributes in page.elements if re.fullmatch("h[1-6]", tag)]
        assert levels.count(1) == 1, path
        assert levels[0] == 1, path
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), path
        assert page.all("main")
        assert page.all("html") == [{"lang": "en"}]
        named = {*page.attribute("aria-labelledby"), *page.attribute("aria-describedby"), *page.attribute("for")}
        assert named <= set(ids), path
        assert not page.attribute("style"), path
        assert not page.all("style"), path
        assert all(attributes.get("src") for attributes in page.all("script")), path
        assert not [name for _tag, found in page.elements for name in found if name.startswith("on")], path


def test_every_link_leads_somewhere(site_tree: dict[str, bytes], site: site_kit.Kit) -> None:
    wheels = site.house.list_wheels(include_unpublished=True)
    served = {f"files/{one.sha256}/{one.filename}" for one in wheels}
    served |= {f"{path}{end}" for path in served for end in (".provenance.json", ".provenance.json.sig")}
    served |= {f"{name}simple/" for name in ("", f"{site_kit.STABLE}/", f"{site_kit.NIGHTLY}/")} | {"simple/index.html"}
    from urllib.parse import unquote  # noqa: PLC0415

    looked = 0
    for path, page in parsed(site_tree).items():
        for link in [*page.attribute("href"), *page.attribute("src"), *page.attribute("data-url")]:
            if link.startswith(("https://", "#")) or not link:
                continue
            assert not link.startswith("/"), (path, link)
            target = unquote(resolved(path, link))
            assert target in site_tree or target in served, (path, link)
            looked += 1
    assert looked > 500


def test_the_same_wheelhouse_gives_the_same_bytes(site_tree: dict[str, bytes], site: site_kit.Kit) -> None:
    with Wheelhouse.open(site.root, clock=site.clock) as house:
        assert dict(pages.tree(house)) == site_tree


def test_an_export_of_a_channel_shows_nothing_of_others(site: site_kit.Kit) -> None:
    found = dict(pages.tree(site.house, [site_kit.STABLE]))
    text = b"\n".join(found.values()).decode()
    assert f"channels/{site_kit.STABLE}/index.html" in found
    assert site_kit.NIGHTLY not in text
    shown = {path.split("/")[1] for path in found if path.startswith("wheels/")}
    from builder.wheelhouse import channel  # noqa: PLC0415

    assert shown == {one.sha256 for one in channel.members(site.house, site_kit.STABLE)}
    for path in (
        "index.html",
        *(f"wheels/{one}/index.html" for one in shown),
        f"channels/{site_kit.STABLE}/index.html",
    ):
        urls = [resolved(path, link) for link in Page(found[path]).attribute("data-url") if "/files/" not in link]
        assert set(urls) == {"simple/"}, path  # an export of one channel has it there
    builds = {path.split("/")[1] for path in found if path.startswith("builds/")} - {"index.html"}
    assert builds == {one.fingerprint for one in channel.members(site.house, site_kit.STABLE) if one.fingerprint}


def test_a_known_address_is_written_out_and_others_are_left_to_the_script(site: site_kit.Kit) -> None:
    known = dict(pages.tree(site.house, url="https://wheels.example/gb10/"))
    assert "--index https://wheels.example/gb10/simple/ " in Page(known["index.html"]).text
    assert not any(page.attribute("data-url") for page in parsed(known).values())


def test_no_text_from_elsewhere_becomes_markup(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    one, fingerprint = site_house.hostile(kit)
    found = dict(pages.tree(kit.house))
    kit.close()
    for path, page in parsed(found).items():
        assert not page.wrong, path
        assert len(page.all("script")) == 1, path
        assert not page.all("img"), path
        assert not [name for _tag, attributes in page.elements for name in attributes if name.startswith("on")], path
        links = page.attribute("href")
        assert all(
            link.startswith(("https://example.invalid/fine", "../", "#")) or ":" not in link for link in links
        ), path
        assert not {"\u202e", "\u0007"} & set(page.text), path
    wheel, build = Page(found[f"wheels/{one.sha256}/index.html"]), Page(found[f"builds/{fingerprint}/index.html"])
    spelled = site_kit.HOSTILE.replace("\u202e", "\\u202e").replace("\u0007", "\\x07")
    assert wheel.text.count(spelled) > 15  # told, all the same
    assert build.text.count(spelled) > 8
    script = found["static/search.js"].decode()
    json.loads(script.removeprefix("sparkIndex(").removesuffix(");\n"))


@given(st.text(), st.text())
def test_any_text_comes_back_out_of_a_page(child: str, value: str) -> None:
    page = Page(h("p", child, title=value).encode())
    assert page.elements == [("p", {"title": visible(value)})]
    assert page.text == f"{visible(child)} "
    assert not page.wrong


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "https://a b", 'https://a/"', "//a", "ftp://a", 7]
)
def test_places_that_arent_linked_to(url: object) -> None:
    assert safe_url(url) is None
    assert safe_url("https://github.com/triton-lang/triton/") is not None


# --- what they say


def test_the_page_of_a_wheel_tells_all_that_is_known(site_tree: dict[str, bytes], site: site_kit.Kit) -> None:
    newest = site.house.list_wheels(project="vllm")[-1]
    text = " ".join(Page(site_tree[f"wheels/{newest.sha256}/index.html"]).text.replace("\u00a0", " ").split())
    for told in (
        f"'vllm=={newest.version}'",
        "pip install --no-deps 'vllm @ ",
        f"#sha256={newest.sha256}",
        f"vllm=={newest.version} --hash=sha256:{newest.sha256}",
        'vllm = { index = "spark-build-cu130-gb10-nightly" }',
        "97 % native to 12.1",
        "sm_121a machine code native",
        "compute_121a PTX by JIT",
        "sm_90a machine code for others",
        "Warning: device-mixed",
        "1 note and 1 let pass",
        "the toolkit is at that place in the final image",
        "patch marlin-sm121 edited",
        "source moved",
        "Size: 321 MiB → 322 MiB",
        "https://github.com/vllm-project/vllm.git",
        "CPython 3.10 and newer, Linux aarch64, glibc 2.39",
        "aarch64, 20 cores, 128 GiB",
        "512 units, 87.0 GiB at the peak",
        "1 unit run again with more",
        "1 h 24 min sooner than with four jobs",
        "SLSA provenance v1",
        "torch==2.13.0",
        ">=3.10,<3.15",
        f"spark-build rebuild {newest.fingerprint[:10]} --check",
    ):
        assert told in text, told
    added = site.house.list_wheels(project="torch")[0]
    assert "Nobody has looked into this wheel yet." in Page(site_tree[f"wheels/{added.sha256}/index.html"]).text


def test_the_page_of_a_failed_build_begins_with_what_to_type_next(
    site_tree: dict[str, bytes], site: site_kit.Kit
) -> None:
    (one,) = {each.fingerprint for each in pages.source(site.house).attempts if each.outcome == "failed"}
    text = Page(site_tree[f"builds/{one}/index.html"]).text
    told = [
        "This attempt failed in phase build",
        "compile-failed",
        'grouped_topk.cu(218): error: no instance of function template "vllm::moe::warp_topk"',
        f"spark-build resume {one[:10]}",
        f"spark-build log {one[:10]} --failed",
        "Phases",
        "Memory while it ran",
        "Compiler runs",
        "ninja: build stopped",
        "stopped by Ctrl-C",
    ]
    places = [text.index(each) for each in told]
    assert places == sorted(places)


def test_states_are_told_with_their_reasons(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    old, bad = (
        kit.wheel("tiny", "1.0", site_kit.inputs("tiny", "1.0", f"{number}a" * 20), days=9 - number)
        for number in (1, 2)
    )
    states.set(kit.house, [bad], "quarantined", "breaks attention <sinks>")
    states.set(kit.house, [old], "yanked", "use 1.1")
    found = dict(pages.tree(kit.house))
    first, second = (Page(found[f"wheels/{one.sha256}/index.html"]) for one in (old, bad))
    assert "This wheel is yanked" in first.text
    assert "use 1.1" in first.text
    assert "uv pip install" in first.text
    assert "This wheel is quarantined" in second.text
    assert "breaks attention <sinks>" in second.text
    assert "pip install" not in second.text
    assert not [link for link in second.attribute("href") if "files/" in link and link.endswith(".whl")]
    assert "breaks attention" in Page(found["projects/tiny/index.html"]).text
    states.status(kit.house, "tiny", "quarantined", "under investigation")
    page = Page(dict(pages.tree(kit.house))["projects/tiny/index.html"])
    kit.close()
    assert "This project is quarantined" in page.text
    assert "under investigation" in page.text
    assert "pip install" not in page.text


@pytest.mark.parametrize("url", ["https://h.example/w", None])
def test_lines_to_paste_tie_every_name_of_a_channel_as_client_config_does(tmp_path: Path, url: str | None) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    wheels = [kit.wheel(f"p{number}", "1.0", None, days=number + 1) for number in range(7)]
    channel.promote(kit.house, "team/x", wheels)
    states.set(kit.house, wheels[:1], "quarantined", "bad")
    html = dict(pages.tree(kit.house, url=url))["channels/team/x/index.html"].decode()
    kit.close()
    codes = [unescape(re.sub(r"<[^>]*>", "", code)) for code in re.findall(r"<code>(.*?)</code>", html, re.DOTALL)]
    at = url or "INDEX-ADDRESS"
    (pasted,) = (tomllib.loads(code) for code in codes if "[[tool.uv.index]]" in code)
    (told,) = pasted["tool"]["uv"]["index"]
    assert (told["url"], told["explicit"]) == (f"{at}/team/x/simple/", True)
    assert pasted["tool"]["uv"]["sources"] == {one.project: {"index": told["name"]} for one in wheels}
    assert pasted["dependency-groups"] == {"spark-build": sorted(one.project for one in wheels[1:])}
    assert pasted["tool"]["uv"]["override-dependencies"] == ["p0"]
    assert f"spark-build index client-config --channel team/x --url {at}/team/x/simple/" in codes


def test_a_build_that_was_replaced_is_told_apart_in_each_channel(site: site_kit.Kit) -> None:
    source = pages.source(site.house)
    rows = {row.wheel.sha256: row for row in source.rows("vllm")}
    *older, promoted, newest = (one.sha256 for one in site.house.list_wheels(project="vllm"))
    assert rows[newest].newer is None
    assert rows[promoted].newer is None  # the stable channel offers it
    assert {rows[one].newer for one in older} == {newest}
    stable = source.selection(site_kit.STABLE)
    assert stable is not None
    assert all(row.newer is None for row in stable.rows if row.wheel.sha256 == promoted)


def test_signatures_are_told_as_far_as_they_hold(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    key, signers = tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signers.write_text(f'ci@<team> namespaces="spark-build" {key.with_suffix(".pub").read_text()}')
    kit = site_kit.Kit(tmp_path / "house")
    made = [
        kit.wheel(
            "tiny",
            "1.0",
            site_kit.inputs("tiny", "1.0", f"{at}a" * 20),
            days=at,
            sign=lambda data: signature.sign(data, key),
        )
        for at in (3, 2)
    ]
    made.append(kit.wheel("tiny", "1.0", site_kit.inputs("tiny", "1.0", "0a" * 20), days=1))
    record = made[1].path.with_name(f"{made[1].path.name}.provenance.json")
    record.write_bytes(record.read_bytes() + b" ")
    told = []
    for allowed in (None, signers):
        found = dict(pages.tree(kit.house, signers=allowed))
        texts = [" ".join(Page(found[f"wheels/{one.sha256}/index.html"]).text.split()) for one in made]
        told.append([re.search(r"Signature (.*?) (?:Check it|Phases)", text)[1] for text in texts])  # type: ignore[index]
    kit.close()
    assert told[0][0].startswith("signature whole of this record; nobody said whose key it is: Good")
    assert "SHA256:" in told[0][0]
    assert told[1][0] == "signature good by ci@<team>, who may sign here"
    assert {told[0][1], told[1][1]} == {told[0][1]}
    assert "doesn't hold" in told[0][1]
    assert (told[0][2], told[1][2]) == ("none", "none")


def test_an_empty_wheelhouse_has_pages_too(tmp_path: Path) -> None:
    with Wheelhouse.open(tmp_path / "house", clock=site_kit.Clock(site_kit.NOW)) as house:
        found = dict(pages.tree(house))
    assert "Nothing was published here yet." in Page(found["index.html"]).text
    assert "Nothing was built in this wheelhouse yet." in Page(found["builds/index.html"]).text


def test_damaged_records_and_logs_dont_keep_a_page_from_coming(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    one = kit.wheel(
        "tiny",
        "1.0",
        site_kit.inputs("tiny", "1.0", "a" * 40),
        days=2,
        found={"files": 7, "findings": [3], "total": "x"},
    )
    one.path.with_name(f"{one.path.name}.provenance.json").write_bytes(b'{"predicate": [')
    folder = kit.attempt(
        "tiny", "1.0", one.fingerprint, site_events.whole("tiny", 1, site_kit.GIB, one.sha256, units=9), days=2
    )
    with (folder / "events.jsonl").open("a") as stream:
        stream.write('{"kind": "gate.state", "t": 5}\n\x00\xff{"torn')
    (folder / "build.log").mkdir()
    found = dict(pages.tree(kit.house))
    kit.close()
    assert not Page(found[f"wheels/{one.sha256}/index.html"]).wrong
    assert "Compiler runs" in Page(found[f"builds/{one.fingerprint}/index.html"]).text
