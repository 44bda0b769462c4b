"""Uploads as twine and ``uv publish`` do them: one form with what a wheel says of itself, then the wheel.

Streamed into ``<wheelhouse>/uploads/<random>/``, compared with what was said of it, audited and published by a worker.
The form: https://docs.pypi.org/api/upload/. Its text fields repeat METADATA, so most of them are left unread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from typing import TYPE_CHECKING, Any, BinaryIO

from aiohttp import web

from builder.errors import SparkError
from builder.server import body, incoming, multipart, pool, refusal
from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.server.site import Site

__all__ = ["Receiver", "legacy", "refused"]

#: Bytes of a field that is looked at, and of all fields together: a long README is one of them.
_FIELD, _TEXT = 1 << 10, 32 << 20
#: The fields that are looked at.
_KNOWN = frozenset(
    {
        ":action",
        "protocol_version",
        "name",
        "version",
        "filetype",
        "pyversion",
        "metadata_version",
        "sha256_digest",
        "blake2_256_digest",
    }
)
#: What errors of an audit or a publish are to a client, where it isn't as elsewhere.
_STATUS = {
    "project-closed": 403,
    "said-otherwise": 400,
    "wheel-missing": 409,
    "wheel-torn": 409,
    "wheel-unstaged": 409,
    "wheel-withheld": 409,
    "audit-refused": 422,
}


async def legacy(request: web.BaseRequest, site: Site, channel: str | None = None) -> web.StreamResponse:
    """Publish one wheel in ``local``, and append it to `channel` in the same step; answer when that is durable.

    The same bytes again are right, and answered in the same way.
    """
    try:
        answer = await _take(request, site, channel)
    except Refusal as refused:
        await body.drain(request, site, refused)
        return told(refused, request)
    site.look()  # who published sees it at once
    (wheel,) = answer["wheels"]
    site.metrics.add("uploads_total", not wheel["cached"])
    said = "was there already, with the same bytes" if wheel["cached"] else "is published"
    if wheel["state"] != "published":  # it was withheld, and removed; its bytes come back as what they were
        said = f"is here, and {wheel['state']}"
    return web.Response(text=f"{wheel['filename']} {said}\n", headers={"Cache-Control": "no-store"})


def told(refused: Refusal, request: web.BaseRequest) -> web.Response:
    """Return the answer that refuses an upload: twine shows people the reason phrase, uv the body."""
    answer = refusal.answer(refused, accept=request.headers.get("Accept", ""))
    line = " ".join(refused.summary.split())[:200]
    answer.set_status(refused.status, "".join(char if " " <= char <= "~" else "?" for char in line))
    return answer


def refused(answer: Mapping[str, Any]) -> Refusal:
    """Return the refusal that a worker's error is."""
    said = answer["error"]
    error = SparkError(said["code"], said["summary"], cause=said["cause"], help=said["help"])
    error.exit_code = said["exit"]  # type: ignore[misc]  # it was one of a class that isn't known here
    made = refusal.of_error(error)
    made.status = _STATUS.get(error.code, made.status)
    return made


async def _take(request: web.BaseRequest, site: Site, channel: str | None) -> dict[str, Any]:
    try:
        mark = multipart.boundary(request.headers.get("Content-Type", ""))
    except multipart.Broken as error:
        raise Refusal(415, "form", f"this takes a form as twine and uv publish send it: {error}") from error
    size = body.length(request, site.settings.max_upload)
    workers = pool.of(site)
    workers.warm()
    async with incoming.folder(site, size) as folder:
        receiver = Receiver(folder, mark)
        try:
            async for block in body.blocks(request, site):
                await site.thread(receiver.feed, block)
            said = await site.thread(receiver.close)
        finally:
            await site.thread(receiver.drop)
        job = {
            "root": str(site.settings.root),
            "wheels": [said],
            "channel": channel if channel != "local" else None,
            "replace": False,
            "accept": [],
        }
        answer = await workers.ask(job)
    if "error" in answer:
        raise refused(answer)
    return answer


class Receiver:
    """Takes a form and leaves its wheel in `folder`, under its own name. Its methods block, and belong into a thread.

    They raise Refusal where the form is none, or isn't about what it holds, and 507 when the disk is full.
    """

    def __init__(self, folder: Path, mark: bytes) -> None:
        self._parser = multipart.Parser(mark)
        self._folder = folder
        self._fields: dict[str, str] = {}
        self._open: str | None = None
        self._value = b""
        self._text = 0
        self._filename: str | None = None
        self._file: BinaryIO | None = None
        self._sha256 = hashlib.sha256()
        self._blake2 = hashlib.blake2b(digest_size=32)

    def feed(self, data: bytes) -> None:
        """Take more of the body."""
        with _told():
            for event in self._parser.feed(data):
                match event:
                    case multipart.Part():
                        self._begin(event)
                    case multipart.Data():
                        self._more(event.data)
                    case multipart.End():
                        self._end()

    def close(self) -> dict[str, Any]:
        """Return what a worker is told of the wheel, once it is known to be the one that the form is about."""
        with _told():
            self._parser.close()
            if self._filename is None:
                raise Refusal(400, "content", "the form has no file called content")
            self.drop()
            _check(self._fields, self._filename)
            self._compare()
            path = self._folder / self._filename
            (self._folder / "content").rename(path)
        return {
            "path": str(path),
            "sha256": self._sha256.hexdigest(),
            "filename": self._filename,
            "said": {"Metadata-Version": self._fields["metadata_version"]}
            if "metadata_version" in self._fields
            else {},
        }

    def drop(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, part: multipart.Part) -> None:
        self._open, self._value = part.name, b""
        if part.name == "content":
            if self._filename is not None:
                raise Refusal(400, "field-twice", "the form has content twice")
            if part.filename is None:
                raise Refusal(400, "content", "content isn't sent as a file")
            if {"name", "version", "filetype"} <= self._fields.keys():  # then nobody has to wait for the rest
                _check(self._fields, part.filename)
            self._filename = part.filename
            self._file = (self._folder / "content").open("xb")
        elif part.name in self._fields:
            raise Refusal(400, "field-twice", f"the form has {part.name} twice")

    def _more(self, data: bytes) -> None:
        if self._open == "content":
            assert self._file is not None  # noqa: S101  # it was opened when the part began
            self._file.write(data)
            self._sha256.update(data)
            self._blake2.update(data)
            return
        self._text += len(data)
        if self._text > _TEXT:
            raise Refusal(413, "form-long", f"the fields of the form have more than {_TEXT} bytes")
        if self._open in _KNOWN:
            self._value += data
            if len(self._value) > _FIELD:
                raise Refusal(400, "field-long", f"{self._open} has more than {_FIELD} bytes")

    def _end(self) -> None:
        if self._open in _KNOWN:
            try:
                value = self._value.decode()
            except UnicodeDecodeError:
                raise Refusal(400, "field", f"{self._open} isn't UTF-8") from None
            if not value.isprintable():
                raise Refusal(400, "field", f"{self._open} has characters that it can't have")
            self._fields[self._open] = value

    def _compare(self) -> None:
        said = self._fields.get("sha256_digest", "").lower()
        if not said:
            raise Refusal(400, "hash-missing", "sha256_digest is missing")
        digests = {"sha256_digest": self._sha256.hexdigest(), "blake2_256_digest": self._blake2.hexdigest()}
        for name, found in digests.items():
            if name in self._fields and not hmac.compare_digest(self._fields[name].lower().encode(), found.encode()):
                raise Refusal(
                    400,
                    "hash",
                    f"{name} says {self._fields[name][:64]}, the bytes that came give {found}",
                    "send it again; when it happens again, something on the way changes it",
                )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except multipart.Broken as error:
        raise Refusal(400, "form", f"the form can't be read: {error}") from error
    except OSError as error:
        raise incoming.unwritable(error) from error


def _check(fields: Mapping[str, str], filename: str) -> None:
    """Return when the fields fit together and name a wheel."""
    if fields.get(":action", "file_upload") != "file_upload":
        raise Refusal(400, "action", "only :action=file_upload is answered here")
    if fields.get("protocol_version", "1") != "1":
        raise Refusal(400, "protocol", "only protocol_version 1 is understood")
    if lacking := [name for name in ("name", "version", "filetype") if not fields.get(name)]:
        raise Refusal(400, "field-missing", f"the form lacks {', '.join(lacking)}")
    if fields["filetype"] != "bdist_wheel":
        raise Refusal(
            400,
            "no-wheel",
            f"this index keeps wheels only, and {filename[:80]!r} is sent as {fields['filetype'][:20]}",
            "build a wheel of it and upload that",
        )
    python = incoming.check_name(filename, fields["name"], fields["version"])
    if fields.get("pyversion", python) != python:
        raise Refusal(400, "pyversion", f"pyversion is {fields['pyversion'][:40]}, {filename} is for {python}")
