"""Which path leads where; and what a client says that it wants."""

from __future__ import annotations

import re

import pytest

from builder.server import accesslog, negotiate, routes
from builder.server.files import ranged
from builder.server.refusal import Refusal
from builder.wheelhouse import channel

SHA = "0123456789abcdef" * 4


def led(path: str, method: str = "GET") -> tuple[str, str, dict[str, str]]:
    match = routes.find(path)
    handler, scope = match.of_method(method)
    return handler, scope, dict(match.arguments)


@pytest.mark.parametrize(
    ("path", "method", "handler", "scope", "arguments"),
    [
        ("/simple/", "GET", "simple:root", "read", {}),
        ("/simple/index.html", "GET", "simple:root", "read", {}),
        ("/team/simple/", "HEAD", "simple:root", "read", {"channel": "team"}),
        ("/cu130-gb10/stable/simple/", "GET", "simple:root", "read", {"channel": "cu130-gb10/stable"}),
        ("/simple/Foo.Bar_x/", "GET", "simple:project", "read", {"name": "Foo.Bar_x"}),
        ("/a/b/simple/foo/", "GET", "simple:project", "read", {"channel": "a/b", "name": "foo"}),
        ("/a/simple/simple/", "GET", "simple:project", "read", {"channel": "a", "name": "simple"}),
        (f"/files/{SHA}/a-1.0%2Bsb1-py3-none-any.whl", "GET", "files:file", "read",
         {"sha256": SHA, "filename": "a-1.0+sb1-py3-none-any.whl"}),
        (f"/files/{SHA}/a-1-py3-none-any.whl.metadata", "HEAD", "files:file", "read",
         {"sha256": SHA, "filename": "a-1-py3-none-any.whl.metadata"}),
        ("/legacy/", "POST", "upload:legacy", "publish", {}),
        ("/legacy", "POST", "upload:legacy", "publish", {}),
        ("/a/b/legacy/", "POST", "upload:legacy", "publish", {"channel": "a/b"}),
        (f"/api/staging/{SHA}/x.whl", "PUT", "staging:put", "publish", {"sha256": SHA, "filename": "x.whl"}),
        (f"/api/staging/{SHA}/x.whl", "HEAD", "staging:head", "publish", {"sha256": SHA, "filename": "x.whl"}),
        ("/api/publish", "POST", "publish:publish", "publish", {}),
        (f"/api/builds/{SHA}", "GET", "builds:of_fingerprint", "read", {"fingerprint": SHA}),
        (f"/api/builds/{SHA}/events", "GET", "events:follow", "read", {"fingerprint": SHA}),
        ("/api/channels", "GET", "channels:every", "read", {}),
        ("/api/channels/a/b", "GET", "channels:one", "read", {"channel": "a/b"}),
        ("/api/openapi.json", "GET", "openapi:document", "read", {}),
        ("/ccache/ab/cdef", "PUT", "ccache:entry", "publish", {"key": "ab/cdef"}),
        ("/ccache/ab/cdef", "HEAD", "ccache:entry", "read", {"key": "ab/cdef"}),
        ("/ccache/ab/cdef", "DELETE", "ccache:entry", "publish", {"key": "ab/cdef"}),
        ("/", "GET", "people:front", "read", {}),
        ("/index.html", "GET", "people:front", "read", {}),
        ("/projects/foo/", "GET", "people:project", "read", {"name": "foo"}),
        (f"/wheels/{SHA}/index.html", "GET", "people:wheel", "read", {"sha256": SHA}),
        ("/builds/", "GET", "people:builds", "read", {}),
        (f"/builds/{SHA}/", "GET", "people:build", "read", {"fingerprint": SHA}),
        ("/channels/", "GET", "people:channels", "read", {}),
        ("/channels/a/b/", "GET", "people:channel", "read", {"channel": "a/b"}),
        ("/static/site.css", "GET", "people:static", "read", {"name": "site.css"}),
        ("/metrics", "GET", "metrics:page", "open", {}),
        ("/health", "GET", "metrics:health", "open", {}),
    ],
)  # fmt: skip
def test_every_path_of_ours(path: str, method: str, handler: str, scope: str, arguments: dict[str, str]) -> None:
    assert led(path, method) == (handler, scope, arguments)


@pytest.mark.parametrize(
    "path",
    [
        "", "*", "simple/", "/simple/a/b/", "/Team/simple/", "/a/b/c/simple/", "/files/", f"/files/{SHA}/",
        f"/files/{SHA}/a/b",
        f"/files/{SHA[:-1]}/x.whl", f"/files/{SHA.upper()}/x.whl", "/simple//", "//simple/", "/simple/./",
        "/simple/../",
        "/simple/%2e%2e/", "/simple/a%2fb/", "/simple/a%2Fb/", "/simple/a\\b/", "/simple/a%5cb/", "/simple/a%00/",
        "/simple/a\x00/",
        "/simple/%20/", "/simple/a b/", "/static/", "/static/..", "/static/../x", "/static/a/b", "/api/",
        "/api/builds/xyz",
        "/files/simple/", "/health/simple/", "/a/files/simple/", "/metrics/", "/health/x", "/ccache/", "/ccache/../x",
        "/ccache//x",
        "/channels/simple/", "/simple/%252e%252e/", "/simple/\u00e9/", "/api/openapi.json/", "/%ff",
    ],
)  # fmt: skip
def test_all_others_lead_nowhere(path: str) -> None:
    with pytest.raises(Refusal) as caught:
        routes.find(path)
    assert caught.value.status in {400, 404}


@pytest.mark.parametrize(
    ("path", "place"), [("/simple", "simple/"), ("/a/simple", "simple/"), ("/simple/x", "x/"), ("/builds", "builds/")]
)
def test_a_path_without_its_slash_is_known(path: str, place: str) -> None:
    assert routes.find(path).redirect == place


def test_other_methods_are_refused_with_those_that_there_are() -> None:
    for path, allowed in (("/simple/", "GET, HEAD"), ("/legacy/", "POST"), (f"/api/staging/{SHA}/x.whl", "HEAD, PUT"),
                          ("/ccache/x", "DELETE, GET, HEAD, PUT")):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            routes.find(path).of_method("TRACE")
        assert (caught.value.status, caught.value.headers) == (405, {"Allow": allowed})


def test_no_channel_is_named_after_what_a_path_stands_for() -> None:
    first = [re.findall("^/([a-z]+)", route.pattern.pattern) for route in routes.ROUTES]
    assert {word for words in first for word in words} <= channel.RESERVED


JSON, HTML, TEXT = negotiate.JSON, negotiate.HTML, negotiate.TEXT


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/vnd.pypi.simple.v1+json", JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("APPLICATION/VND.PYPI.SIMPLE.V1+JSON", JSON),
        ("application/vnd.pypi.simple.v1+html", HTML),
        ("application/vnd.pypi.simple.latest+html", HTML),
        ("application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01", JSON),
        ("application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01", JSON),
        ("text/html;q=0.9, application/vnd.pypi.simple.v1+json;q=0.1", TEXT),
        ("text/html;q=0.5, application/vnd.pypi.simple.v1+json;q=0.5", JSON),
        ("application/vnd.pypi.simple.v1+json;q=0, text/html", TEXT),
        ("application/vnd.pypi.simple.v1+json;q=0", ""),
        ("application/*", JSON),
        ("text/*;q=0.1", TEXT),
        ("text/html;q=0, */*", JSON),
        ("text/*;q=0, */*;q=0.1", JSON),
        ("text/html;q=0.1, */*", JSON),
        ("application/vnd.pypi.simple.v1+json;q=0, application/*", HTML),
        ("text/html;q=0, text/*", ""),
        ("*/*;q=0", ""),
        ("application/vnd.pypi.simple.v2+json", ""),
        ("application/vnd.pypi.simple.v2+json, application/vnd.pypi.simple.v1+json;q=0.5", JSON),
        ("application/json", ""),
        ("image/png", ""),
        ("text/html;q=2", ""),
        ("text/html;q=abc", ""),
        ("text/html;level=1;q=0.3, application/vnd.pypi.simple.v1+html;q=0.4", HTML),
        (",,;;,text/html", TEXT),
    ],
)
def test_the_kind_of_page(accept: str, kind: str) -> None:
    assert negotiate.kind_of(accept) == kind


def test_a_format_in_the_address_counts_first() -> None:
    assert negotiate.kind_of("text/html", "application/vnd.pypi.simple.v1+json") == JSON
    assert (
        negotiate.kind_of("text/html", "application/vnd.pypi.simple.v1 json") == JSON
    )  # a plus sign, decoded as forms are
    assert negotiate.kind_of("*/*", "application/vnd.pypi.simple.latest%2Bhtml") == HTML
    assert negotiate.kind_of("*/*", "nonsense") == ""
    assert negotiate.kind_of("*/*", "") == ""
    assert negotiate.kind_of("*/*", "*/*") == ""


@pytest.mark.parametrize(
    ("header", "takes"),
    [("", False), ("gzip", True), ("gzip, deflate, zstd", True), ("zstd, gzip;q=0.1", True), ("gzip;q=0", False),
    ("*", True),
     ("*;q=0", False), ("identity", False), ("br", False), ("GZIP", True), ("gzip;q=0, *", False)],
)  # fmt: skip
def test_whether_gzip_is_taken(header: str, takes: bool) -> None:  # noqa: FBT001  # a table
    assert negotiate.takes_gzip(header) is takes


@pytest.mark.parametrize(
    ("header", "part"),
    [("bytes=0-0", (0, 1)), ("bytes=5-9", (5, 10)), ("bytes=5-", (5, 100)), ("bytes=-7", (93, 100)), ("bytes=-700",
    (0, 100)),
     ("bytes=90-1000", (90, 100)), ("BYTES=1-2", (1, 3)), ("lines=1-2", None), ("bytes=0-1,5-6", None), ("0-1", None)],
)  # fmt: skip
def test_a_range(header: str, part: tuple[int, int] | None) -> None:
    assert ranged(header, 100) == part


@pytest.mark.parametrize(
    "header",
    ["bytes=100-", "bytes=100-200", "bytes=9-5", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=", "bytes=1", "bytes=--1",
     f"bytes={'9' * 5000}-", "bytes=1-2-3", "bytes=\u0661-2"],
)  # fmt: skip
def test_a_range_that_names_nothing(header: str) -> None:
    with pytest.raises(Refusal) as caught:
        ranged(header, 100)
    assert (caught.value.status, caught.value.headers["Content-Range"]) == (416, "bytes */100")


def test_a_line_of_the_access_log_tells_no_secret_and_stays_one_line() -> None:
    line = accesslog.line(
        peer="10.0.0.1",
        user="ci",
        now=1_700_000_000.0,
        request='GET http://me:hunter2@x/simple/?a=1&token=hunter2&b="\n\x1b[2J HTTP/1.1',
        status=200,
        size=12,
        referer="http://x/?api_key=hunter2",
        agent='evil" 200 1 "',
    )
    assert "hunter2" not in line
    assert line.startswith('10.0.0.1 - ci [14/Nov/2023:22:13:20 +0000] "GET http://x/simple/?a=1&token=***&b=%22')
    assert line.count("\n") == 1
    assert line.count('"') == 6
    assert "\x1b" not in line
