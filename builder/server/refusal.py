"""How a request is refused: raised anywhere, answered as text, or as JSON (RFC 9457) where the client asks for that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from builder.errors import SparkError

__all__ = ["TITLES", "Refusal", "answer", "of_error"]

TITLES = {
    301: "Moved Permanently",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    410: "Gone",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}
#: What an error of ours means to a client, by its exit code: theirs (4xx) or ours (5xx).
_STATUS = {2: 400, 3: 503, 4: 502, 5: 422, 6: 500}
_BY_CODE = {
    "name-taken": 409,
    "build-taken": 409,
    "channel-missing": 404,
    "channel-name": 400,
    "wheel-ref": 404,
    "wheel-missing": 404,
    "disk-full": 507,
}


class Refusal(Exception):
    """A request isn't answered as asked. `code` is a stable slug, `summary` one line, `help` says how to go on."""

    def __init__(
        self, status: int, code: str, summary: str, help: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(summary)
        self.status = status
        self.code = code
        self.summary = summary
        self.help = help
        self.headers = dict(headers or {})


def of_error(error: SparkError) -> Refusal:
    """Return what an error of ours is to a client; of the server's own troubles it learns no more than the kind."""
    status = _BY_CODE.get(error.code) or _STATUS.get(error.exit_code, 500)
    if status >= 500:  # noqa: PLR2004
        text = "there is no space left on the server" if status == 507 else "the server failed; its log says why"  # noqa: PLR2004
        return Refusal(status, error.code, text)
    text = error.summary if not error.cause else f"{error.summary}: {error.cause}"
    return Refusal(status, error.code, text, error.help)


def answer(refusal: Refusal, *, accept: str) -> web.Response:
    """Return the answer; errors are never cached."""
    from aiohttp import web  # noqa: PLC0415  # the command line has refusals, too, and does without
    from multidict import CIMultiDict  # noqa: PLC0415

    headers = CIMultiDict({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **refusal.headers})
    if "json" in accept and "vnd.pypi.simple" not in accept:
        headers["Content-Type"] = "application/problem+json"
        document = {
            "title": TITLES.get(refusal.status, "Error"),
            "status": refusal.status,
            "code": refusal.code,
            "detail": refusal.summary,
        }
        if refusal.help:
            document["help"] = refusal.help
        body = json.dumps(document, ensure_ascii=False).encode()
    else:
        headers["Content-Type"] = "text/plain; charset=utf-8"
        body = "\n".join(filter(None, [refusal.summary, refusal.help])).encode(errors="replace") + b"\n"
    return web.Response(status=refusal.status, body=body, headers=headers)
