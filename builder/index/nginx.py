"""The configuration with which nginx serves a tree as our own server does: the same types, headers and answers.

Measured against nginx 1.22. Two things a static server can't do: redirect a name that isn't normalised (pip and uv ask for
normalised ones only), and weigh an ``Accept`` header's ``q`` (JSON goes before HTML, as both ask).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.index import pages
from builder.index.listing import Project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["text"]

#: Stands for a project's name where nginx puts the one that was asked for.
_NAME = "any-name"

_TEXT = """\
# Serves this index as `spark-build index serve` does. For the http context:
#
#     cp nginx.conf /etc/nginx/conf.d/spark-build.conf     then set listen, server_name and TLS there
#
# Copy it, don't include it from here: who may write to this folder would rule the web server.

map $http_accept $spark_build_page {
    default                                                   "none";
    ""                                                        "index.html";
    "~*application/vnd\\.pypi\\.simple\\.(v1|latest)\\+json"  "index.v1_json";
    "~*application/vnd\\.pypi\\.simple\\.(v1|latest)\\+html"  "index.v1_html";
    "~*(text/html|text/\\*|\\*/\\*)"                          "index.html";
    "~*application/\\*"                                       "index.v1_json";
}
@DOLLAR@
server {
    listen 80;

    root "@ROOT@";
    absolute_redirect off;
    autoindex off;
    charset utf-8;
    gzip off;
    sendfile on;
    tcp_nopush on;
    types {
        text/html html;
        text/css css;
        text/javascript js;
        application/json json;
        image/svg+xml svg;
        image/png png;
        font/woff2 woff2;
        text/plain txt log;
    }
    default_type application/octet-stream;

    # Pages for people.
    location / {
        error_page 404 /404.html;
        add_header Cache-Control "no-cache" always;
        add_header X-Content-Type-Options nosniff always;
    }
    location = /nginx.conf { return 404; }
    location ~ /\\. { return 404; }

    # Pages for clients: JSON or HTML, as the client asks. They change, so each use is checked, mostly by a 304.
    location ~ "^/@SIMPLE@(?:[^/]+/)?$" {
        if ($spark_build_page = "none") { return 406; }
        rewrite ^ $uri$spark_build_page last;
    }
@PAGES@
    # Wheels and METADATA never change under a name. Records may be signed later.
    location ~ "^/files/[0-9a-f]{64}/[^/]+\\.whl$" {
        types {}
        add_header Cache-Control "max-age=365000000, immutable";
        add_header X-Content-Type-Options nosniff;
    }
    location ~ "^/files/[0-9a-f]{64}/[^/]+\\.metadata$" {
        types {}
        default_type text/plain;
        charset_types text/plain;
        add_header Cache-Control "max-age=365000000, immutable";
        add_header X-Content-Type-Options nosniff;
    }
    location ~ "^/files/[0-9a-f]{64}/[^/]+\\.provenance\\.json(?:\\.sig)?$" {
        types { application/json json; }
        default_type text/plain;
        add_header Cache-Control "no-cache";
        add_header X-Content-Type-Options nosniff;
    }
    location ~ ^/files/ { return 404; }
}
"""

#: A path is expanded as any value, and a dollar sign can't be escaped.
_DOLLAR = """
geo $spark_build_dollar { default "$"; }
"""

_PAGE = """\
    location ~ "^@FOLDER@index\\.v1_json$" {
        types {}
        default_type application/vnd.pypi.simple.v1+json;@NO_JSON@
        @HEADERS@
    }
    location ~ "^@FOLDER@index\\.v1_html$" {
        internal;
        types {}
        default_type application/vnd.pypi.simple.v1+html;@NO_HTML@
        rewrite ^ ${spark_build_folder}index.html break;
        @HEADERS@
    }
    location ~ "^@FOLDER@index\\.html$" {@NO_HTML@
        @HEADERS@
    }
"""

_HEADERS = """\
gzip_static on;
        add_header Vary "Accept, Accept-Encoding" always;
        add_header Cache-Control "no-cache" always;
        add_header X-Content-Type-Options nosniff always;"""


#: When an empty page is sent: for a name that is reserved, where nobody published it;
_RESERVED = """
        if (!-f $document_root${spark_build_folder}@FILE@) { return 200 '@BODY@'; }"""
#: and for one of ours in a channel that isn't there any more.
_LOST = """
        set $spark_build_lost "";
        if (!-f $document_root${spark_build_folder}@FILE@) { set $spark_build_lost "1"; }
        if (-f $document_root/simple/$spark_build_name/@FILE@) { set $spark_build_lost "${spark_build_lost}1"; }
        if ($spark_build_lost = "11") { return 200 '@BODY@'; }"""


def text(root: Path, reserve: Sequence[str] = (), *, everything: bool = False) -> str:
    """Return the configuration for the tree at `root`; `reserve` holds names and patterns of names (``flashinfer-*``).

    A reserved name that nobody published is answered with an empty page, so that no client looks for it elsewhere.
    `everything` says that the tree has all channels.
    """
    simple = "(?:[a-z0-9-]+/){0,2}simple/" if everything else "simple/"
    blocks = []
    if patterns := sorted({_pattern(name) for name in reserve if "*" in name or "?" in name}):
        project = f"(?<spark_build_name>{'|'.join(patterns)})"
        blocks.append(_pages(f"(?<spark_build_folder>/{simple}{project}/)", _RESERVED))
    if everything:
        channel = "(?<spark_build_folder>/(?:[a-z0-9-]+/){1,2}simple/(?<spark_build_name>[^/]+)/)"
        blocks.append(_pages(channel, _LOST))
    blocks.append(_pages(f"(?<spark_build_folder>/{simple}(?:[^/]+/)?)"))
    quoted = str(root).replace("\\", "\\\\").replace('"', '\\"')
    dollar = _DOLLAR if "$" in quoted else ""
    quoted = quoted.replace("$", "${spark_build_dollar}")
    return _filled(_TEXT, {"DOLLAR": dollar, "ROOT": quoted, "SIMPLE": simple, "PAGES": "".join(blocks)})


def _pages(folder: str, missing: str = "") -> str:
    """Return who answers for the three forms of a page; `missing` is when an empty one is sent."""
    values = {"FOLDER": folder, "HEADERS": _HEADERS, "NO_JSON": "", "NO_HTML": ""}
    if missing:
        empty = Project(name=_NAME)
        texts = {
            "JSON": ("index.v1_json", pages.project_json(empty, 2)),
            "HTML": ("index.html", pages.project_html(empty, 2)),
        }
        for kind, (file, text) in texts.items():
            body = text.replace(_NAME, "$spark_build_name")
            values[f"NO_{kind}"] = _filled(missing, {"FILE": file, "BODY": body})
    return _filled(_PAGE, values)


def _pattern(name: str) -> str:
    """Return a pattern of names as nginx knows patterns."""
    known = {"*": "[a-z0-9-]*", "?": "[a-z0-9-]", "_": "-", ".": "-"}
    return "".join(known.get(letter, re.escape(letter)) for letter in name.lower())


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)
