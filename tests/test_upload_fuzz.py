"""Ten thousand malformed uploads: wheels, names, versions, forms, requests. Nothing gets out, nothing stays, nothing falls.

Each has a number, and is made from it alone. By default a sample is sent; ``--slow`` sends all.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import random
import re
import socket
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.digest import sha256_file
from builder.server import multipart
from tests import upload_kit as ups
from tests import wheelhouse_kit as kit
from tests.server_kit import serving, token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.server_kit import Server
    from tests.world import World

ALL, BATCH = 10_000, 1_000
#: Of the sample one is sent of so many; no kind is left out, since it has no factor in common with their number.
STEP = 41
#: Every name that means to get out has this word in it.
ESCAPED = "escaped-2f7c1d"
OUTSIDE = (f"../../{ESCAPED}", f"../../../../../../../../tmp/{ESCAPED}", f"/tmp/{ESCAPED}", f"..\\..\\{ESCAPED}")  # noqa: S108

Files = dict[str, bytes]


@dataclass
class Case:
    """One upload. `status` are the answers that are right; 0 stands for none, where the request was no whole one."""

    body: bytes
    status: set[int]
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/legacy/"
    method: str = "POST"
    secret: str | None = "good"  # noqa: S105  # which of the tokens, no secret
    raw: bytes = b""


# --- wheels


def contents(name: str, version: str) -> Files:
    info = f"{name}-{version}.dist-info"
    return {
        f"{name}/__init__.py": b"VALUE = 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }


def row(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def packed(files: Files, *, record: bytes | None = None, links: tuple[str, ...] = (), twice: str = "") -> bytes:
    info = next((name.split("/")[0] for name in files if ".dist-info/" in name), "none-0.dist-info")
    rows = "\n".join([*(row(name, data) for name, data in files.items()), f"{info}/RECORD,,", ""])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, f"{info}/RECORD": rows.encode() if record is None else record}.items():
            one = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            one.compress_type = zipfile.ZIP_DEFLATED
            one.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(one, data)
        if twice:
            with contextlib.suppress(UserWarning):
                archive.writestr(zipfile.ZipInfo(twice, (2024, 1, 1, 0, 0, 0)), b"other")
    return buffer.getvalue()


def slip(rng: random.Random, name: str, version: str) -> bytes:
    return packed({**contents(name, version), rng.choice(OUTSIDE): b"out\n"})


def nul(rng: random.Random, name: str, version: str) -> bytes:
    data = packed({**contents(name, version), "a#b/c.py": b"x"})
    return data.replace(b"a#b", rng.choice([b"a\0b", b"a\nb", b"\xff\xfeb", b"a\\b"]))


def link(rng: random.Random, name: str, version: str) -> bytes:
    return packed({**contents(name, version), f"{name}/link": rng.choice(OUTSIDE).encode()}, links=(f"{name}/link",))


def doubled(rng: random.Random, name: str, version: str) -> bytes:
    files = contents(name, version)
    return packed(files, twice=rng.choice(list(files)))


def truncated(rng: random.Random, name: str, version: str) -> bytes:
    data = packed(contents(name, version))
    return data[: rng.randrange(len(data))]


def lying_record(rng: random.Random, name: str, version: str) -> bytes:
    files = contents(name, version)
    rows = [row(one, data + b"x") if rng.random() < 0.6 else row(one, data) for one, data in files.items()]
    rows[0] = row(next(iter(files)), b"others")
    return packed(files, record="\n".join([*rows, f"{name}-{version}.dist-info/RECORD,,", ""]).encode())


def odd_record(rng: random.Random, name: str, version: str) -> bytes:
    return packed(
        contents(name, version),
        record=rng.choice([b"", b"\0" * 99, b'"', b"a,md5=x,1\n", b"\xff\xfe", b",,\n", b"x,sha256=,-1\n" * 50]),
    )


def lacking(rng: random.Random, name: str, version: str) -> bytes:
    files = contents(name, version)
    for one in rng.sample(list(files), rng.randrange(1, 4)):
        if not one.endswith("__init__.py"):
            del files[one]
    return packed(dict(list(files.items())[:-1]) if len(files) == 3 else files)


def two_infos(_rng: random.Random, name: str, version: str) -> bytes:
    return packed({**contents(name, version), **contents("other", version)})


def renamed(rng: random.Random, name: str, version: str) -> bytes:
    return packed(contents(*rng.choice([("other", version), (name, "99"), ("", version), ("é", version), (name, "")])))


def bomb(rng: random.Random, name: str, version: str) -> bytes:
    files = contents(name, version)
    if rng.random() < 0.5:
        return packed({**files, f"{name}/zeros": bytes(20 << 20)})
    data = packed({**files, f"{name}/zeros": bytes(4 << 20)})  # says that it is small
    return data.replace(struct.pack("<I", 4 << 20), struct.pack("<I", 100))


def overlapping(_rng: random.Random, name: str, version: str) -> bytes:
    """Members that share one body, as in the better bombs."""
    body = zlib.compress(bytes(1 << 20))[2:-4]
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(body), 1 << 20, 1, 0) + b"a" + body
    central = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, 0, len(body), 1 << 20, len(one), 0, 0, 0, 0, 0, 0)
        + one
        for one in (f"{name}-{version}.dist-info/{number}".encode() for number in range(200))
    )
    return local + central + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 200, 200, len(central), len(local), 0)


def flipped(rng: random.Random, name: str, version: str) -> bytes:
    data = bytearray(packed(contents(name, version)))
    for _number in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def noise(rng: random.Random, _name: str, _version: str) -> bytes:
    return rng.choice([b"", b"PK", b"PK\5\6" + bytes(18), rng.randbytes(rng.randrange(3000)), b"\0" * 5000])


def directory_lies(rng: random.Random, name: str, version: str) -> bytes:
    data = bytearray(packed(contents(name, version)))
    at = data.rfind(b"PK\5\6") + rng.choice([8, 10, 12, 16])
    data[at : at + 2] = rng.choice([b"\xff\xff", b"\0\0", b"\x01\x80"])
    return bytes(data)


def flags(rng: random.Random, name: str, version: str) -> bytes:
    data = bytearray(packed(contents(name, version)))
    at = data.find(b"PK\1\2")
    where, what = rng.choice([(8, 1), (8, 0x40), (10, 1), (10, 12), (10, 99)])  # encrypted, or packed in another way
    data[at + where] = what
    return bytes(data)


def headers_lie(rng: random.Random, name: str, version: str) -> bytes:
    files, info = contents(name, version), f"{name}-{version}.dist-info"
    text = rng.choice(
        [b"", b"\0", b"\xff\xfe\xfd", b"Name\n", b"Name: " + b"x" * 70_000 + b"\n", b": \n" * 999, b"\r\n\r\nName: x\n"]
    )
    return packed({**files, f"{info}/METADATA": text})


def deep_inputs(rng: random.Random, name: str, version: str) -> bytes:
    text = rng.choice([b"[" * 30_000, b"{", b'{"a": 1.5}', b"[]", b'{"name": {"a": "b"}}', b"\xff"])
    return packed({**contents(name, version), f"{name}-{version}.dist-info/spark-build/inputs.json": text})


WHEELS: tuple[tuple[Callable[[random.Random, str, str], bytes], set[int]], ...] = (
    (slip, {422}),
    (nul, {422}),
    (link, {422}),
    (doubled, {422}),
    (truncated, {422}),
    (lying_record, {422}),
    (odd_record, {422}),
    (lacking, {422}),
    (two_infos, {422}),
    (renamed, {422, 400}),
    (bomb, {422}),
    (overlapping, {422}),
    (flipped, {422, 400, 200}),  # a time of day may be another one
    (noise, {422}),
    (directory_lies, {422}),
    (flags, {422}),
    (headers_lie, {422, 400}),
    (deep_inputs, {422}),
)


def of_wheel(rng: random.Random, number: int) -> Case:
    make, status = WHEELS[rng.randrange(len(WHEELS))]
    name, version = f"fuzz{number}", "1.0"
    path = Path(f"{name}-{version}-py3-none-any.whl")
    return Case(ups.upload(path, data=make(rng, name, version)), status)


# --- what is said of a wheel


def of_fields(rng: random.Random, number: int) -> Case:
    name = f"fuzz{number}"
    data = packed(contents(name, "1.0"))
    path = Path(f"{name}-1.0-py3-none-any.whl")
    odd = rng.choice(
        ["", " ", "x" * 2000, "\0", "é", "..", "../x", "-", "1" * 500, "a\r\nb", "%00", "\u202e", "1.0; x", "*", "[]"]
    )
    which = rng.choice(["name", "version", "filetype", "_action", "protocol_version", "sha256_digest", "pyversion"])
    which = rng.choice([which, "metadata_version", "blake2_256_digest"])
    if rng.random() < 0.3:
        return Case(
            ups.upload(path, data=data, without=[rng.choice(["name", "version", "filetype", "sha256_digest"])]), {400}
        )
    return Case(ups.upload(path, data=data, **{which: odd}), {400})


def of_filename(rng: random.Random, number: int) -> Case:
    name = f"fuzz{number}"
    good = f"{name}-1.0-py3-none-any.whl"
    filename = rng.choice(
        [
            *OUTSIDE,
            f"../../{ESCAPED}/{good}",
            f"/tmp/{good}",  # noqa: S108
            f"%2e%2e%2f{good}",
            f"{good}\\",
            good.upper(),
            good.replace(".whl", ".tar.gz"),
            good + ".provenance.json",
            "x" * 300 + good,
            good.replace("1.0", "one"),
            good.replace("-1.0", ""),
            f".{good}",
            f"{good}\u202e",
            "CON",
            ".",
            "..",
        ]
    )
    return Case(
        ups.upload(Path(good), data=packed(contents(name, "1.0")), filename=filename.replace("\\", "\\\\")), {400}
    )


# --- forms


def of_form(rng: random.Random, number: int) -> Case:
    name = f"fuzz{number}"
    path = Path(f"{name}-1.0-py3-none-any.whl")
    good = ups.upload(path, data=packed(contents(name, "1.0")))
    mark = b"--" + ups.BOUNDARY
    kind = f"multipart/form-data; boundary={ups.BOUNDARY.decode()}"
    broken: list[tuple[bytes, dict[str, str], set[int]]] = [
        (good[: rng.randrange(len(good) - 6)], {}, {400}),
        (good.replace(mark, b"--other"), {}, {400}),
        (good.replace(mark, mark[:-1]), {}, {400}),
        (b"preamble\r\n" + good, {}, {400}),
        (good.replace(b"\r\n", b"\n"), {}, {400}),
        (good.replace(b"form-data", b"attachment"), {}, {400}),
        (good.replace(b'name="content"', b'name="other"'), {}, {400}),
        (good.replace(b'; filename="', b'; file="'), {}, {400}),
        (good.replace(b'name="name"', b'name="version"'), {}, {400}),
        (good.replace(b'name="', b'name="a"; name="', 1), {}, {400}),
        (good.replace(b"Content-Disposition", b"Content-Dispositio"), {}, {400}),
        (good.replace(b"Content-Disposition: ", b"X" * 9000 + b": a\r\nContent-Disposition: ", 1), {}, {400}),
        (
            good.replace(
                b"Content-Type: application", b"Content-Transfer-Encoding: base64\r\nContent-Type: application"
            ),
            {},
            {400},
        ),
        (ups.form([ups.part(f"f{one}", b"x") for one in range(5000)]), {}, {400}),
        (ups.form([ups.part("name", b"x" * rng.randrange(1025, 99_999))]), {}, {400}),
        (ups.form([ups.part("name", rng.choice([b"a\0b", b"\xff", b"\x1b[2J"]))]), {}, {400}),
        (ups.form([good[:-30]]), {}, {400}),
        (b"", {}, {400}),
        (mark + b"--\r\n", {}, {400}),
        (mark * 5000, {}, {400}),
        (rng.randbytes(rng.randrange(5000)), {}, {400}),
        (
            good,
            {"Content-Type": rng.choice(["text/plain", "multipart/mixed; boundary=x", "", "multipart/form-data"])},
            {415},
        ),
        (good, {"Content-Type": f'{kind[:30]}"unended'}, {415}),
        (good, {"Content-Type": kind + "; boundary=b"}, {415}),
        (good, {"Content-Type": "multipart/form-data; boundary=" + "b" * 71}, {415}),
        (good, {"Content-Encoding": rng.choice(["gzip", "br", "x"])}, {415}),
    ]
    body, headers, status = rng.choice(broken)
    return Case(body, status, headers)


def of_flips(rng: random.Random, number: int) -> Case:
    """A good form with bytes changed, gone and added."""
    name = f"fuzz{number}"
    data = bytearray(ups.upload(Path(f"{name}-1.0-py3-none-any.whl"), data=packed(contents(name, "1.0"))))
    for _number in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 40)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 40))
    return Case(bytes(data), {200, 400, 422})


# --- requests


def of_request(rng: random.Random, number: int) -> Case:
    name = f"fuzz{number}"
    good = ups.upload(Path(f"{name}-1.0-py3-none-any.whl"), data=packed(contents(name, "1.0")))
    kind = f"Content-Type: multipart/form-data; boundary={ups.BOUNDARY.decode()}\r\n"

    def raw(length: str, body: bytes, more: str = "") -> bytes:
        return (
            f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nTOKEN{kind}Connection: close\r\n{more}{length}\r\n".encode() + body
        )

    requests: list[tuple[bytes, set[int]]] = [
        (raw("Content-Length: -1\r\n", good), {400}),
        (raw("Content-Length: +5\r\n", good), {400}),
        (raw("Content-Length: five\r\n", good), {400}),
        (raw("Content-Length: 1\r\nContent-Length: 2\r\n", good), {400}),
        (raw("Content-Length: 99999999999999999999999\r\n", b""), {400, 413}),
        (raw("Content-Length: 20000000000\r\n", b""), {413}),
        (raw("", b""), {411}),
        (raw("Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), {411}),
        (raw("Transfer-Encoding: chunked\r\n", b"zz\r\n"), {400, 411}),
        (raw(f"Transfer-Encoding: chunked\r\nContent-Length: {len(good)}\r\n", good), {400, 411}),
        (raw(f"Content-Length: {len(good) + 50}\r\n", good), {0, 400}),
        (raw(f"Content-Length: {len(good)}\r\n", good[: rng.randrange(len(good))]), {0, 400}),
        (raw(f"Content-Length: {len(good)}\r\n", good, "X" * 9000 + ": y\r\n"), {400, 431}),
        (raw(f"Content-Length: {len(good)}\r\n", good, "X: a\0b\r\n"), {400}),
    ]
    data, status = rng.choice(requests)
    return Case(b"", status, raw=data)


def of_token(rng: random.Random, number: int) -> Case:
    name = f"fuzz{number}"
    good = ups.upload(Path(f"{name}-1.0-py3-none-any.whl"), data=packed(contents(name, "1.0")))
    value, status = rng.choice(
        [
            (None, 401),
            ("Bearer ", 401),
            ("Bearer sbt_" + "x" * 32, 401),
            ("Basic !!!", 401),
            ("Basic " + base64.b64encode(b"u:nope").decode(), 401),
            ("Basic " + base64.b64encode(b"\xff\xfe").decode(), 401),
            ("Digest x", 401),
            ("Bearer " + "x" * 6000, 401),
            ("READER", 403),
            ("TEAM", 403),
        ]
    )
    return Case(good, {status}, {"Authorization": value} if value else {}, secret=None)


def of_api(rng: random.Random, number: int) -> Case:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    name = f"fuzz{number}-1.0-py3-none-any.whl"
    if rng.random() < 0.5:
        odd: Any = rng.choice(
            [None, 1, "", "x", [], {}, [1], "\0", "../..", 1e9, True, "é" * 99, ["a"] * 300, OUTSIDE[0]]
        )
        asked: dict[str, Any] = {"wheels": [{"sha256": digest, "filename": name}]}
        key = rng.choice(["wheels", "channel", "replace", "accept", "more", "sha256", "filename"])
        if key in {"sha256", "filename"}:
            asked["wheels"][0][key] = odd
        else:
            asked[key] = odd
        return Case(json.dumps(asked).encode(), {400, 409}, path="/api/publish")
    data = rng.randbytes(rng.randrange(200))
    path, status = rng.choice(
        [
            (f"/api/staging/{digest}/{name}", {400}),  # other bytes
            (f"/api/staging/{digest}/..%2f{ESCAPED}", {404}),
            (f"/api/staging/{digest}/{ESCAPED}.whl", {400}),
            (f"/api/staging/../{ESCAPED}", {404}),
            (f"/api/staging/{digest[:-1]}/{name}", {404}),
            (f"/api/staging/{digest}/{name}.sig", {400}),
        ]
    )
    headers = {"Content-Range": rng.choice(["bytes 5-1/9", "bytes */9", "x", "bytes 0-99/50", "bytes 3-9/999"])}
    return Case(data, {*status, 409}, headers if rng.random() < 0.5 else {}, path, "PUT")


KINDS = (of_wheel, of_wheel, of_wheel, of_fields, of_filename, of_form, of_flips, of_request, of_token, of_api)


def case(number: int) -> Case:
    rng = random.Random(f"upload {number}")  # noqa: S311  # made again from its number
    return KINDS[number % len(KINDS)](rng, number)


# --- sending them


def send(server: Server, one: Case, secrets: Mapping[str, str]) -> int:
    bearer = f"Bearer {secrets['good']}"
    if one.raw:
        raw = one.raw.replace(b"TOKEN", f"Authorization: {bearer}\r\n".encode())
        return first_status(server, raw, shut=0 in one.status)
    headers = {
        "Content-Type": f"multipart/form-data; boundary={ups.BOUNDARY.decode()}",
        **({"Authorization": bearer} if one.secret else {}),
        **one.headers,
    }
    if headers.get("Authorization") in {"READER", "TEAM"}:
        headers["Authorization"] = f"Bearer {secrets[headers['Authorization'].lower()]}"
    return server.ask(one.path, one.method, one.body, **headers).status


def first_status(server: Server, data: bytes, *, shut: bool) -> int:
    """Return the status that comes back, 0 for none."""
    with (
        socket.create_connection((server.host, server.port), timeout=20) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(data)
        if shut:
            client.shutdown(socket.SHUT_WR)
        found = re.match(rb"HTTP/1\.[01] (\d{3}) ", client.recv(4096))
        return int(found[1]) if found else 0
    return 0


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malformed_uploads(world: World, request: pytest.FixtureRequest) -> None:
    root, base = world.wheelhouse, world.root
    secrets = {
        "good": token(root, "good", "publish"),
        "reader": token(root, "reader", "read"),
        "team": token(root, "team", "publish", channels=("team/*",)),
    }
    every = range(ALL) if request.config.getoption("--slow") else range(0, ALL, STEP)
    wrong: list[str] = []
    told: Counter[int] = Counter()
    with serving(world) as server:
        anchor = kit.make_wheel(base / "dist", "anchor")
        assert ups.post(server, ups.upload(anchor), secrets["good"]).status == 200
        before = files_outside(base, root)
        sizes = []
        for at in range(0, len(every), BATCH):
            for number in every[at : at + BATCH]:
                one = case(number)
                status = send(server, one, secrets)
                told[status] += 1
                if status not in one.status:
                    wrong.append(f"{number} ({KINDS[number % len(KINDS)].__name__}): {status}, wanted {one.status}")
            assert wrong == [], "\n".join(wrong)
            assert server.process.poll() is None
            assert server.ask("/health").status == 200
            assert "Traceback" not in server.log
            assert "a bug in spark-build" not in server.log
            assert files_outside(base, root) == before
            assert not [place for place in escaped(root) if place.exists()]
            ups.nothing_left(root)
            sizes.append(server.rss_kib())
        assert server.ask(f"/files/{sha256_file(anchor)}/{anchor.name}").body == anchor.read_bytes()
        assert sizes[-1] < sizes[0] + 20_480, sizes
    world.run("wheels", "verify")
    assert told[500] == told[503] == told[507] == 0
    assert len(every) == sum(told.values())


def escaped(root: Path) -> list[Path]:
    return [Path("/tmp") / ESCAPED, Path("/") / ESCAPED, *(parent / ESCAPED for parent in root.parents)]  # noqa: S108


def files_outside(base: Path, root: Path) -> set[Path]:
    """What lies beside the wheelhouse, less logs of the server."""
    return {path for path in base.rglob("*") if not path.is_relative_to(root) and path.suffix != ".log"}


def test_a_form_is_the_same_however_it_is_cut() -> None:
    good = ups.upload(
        Path("fuzz-1.0-py3-none-any.whl"), data=packed(contents("fuzz", "1.0")) + b"\r\n--" + ups.BOUNDARY[:-1]
    )
    whole = read(good, len(good))
    assert [part.name for part, _data in whole][-1] == "content"
    for size in (1, 2, 3, 7, 50, 999):
        assert read(good, size) == whole


def read(form: bytes, size: int) -> list[tuple[multipart.Part, bytes]]:
    parser, found = multipart.Parser(ups.BOUNDARY), []
    for at in range(0, len(form), size):
        for event in parser.feed(form[at : at + size]):
            match event:
                case multipart.Part():
                    found.append((event, b""))
                case multipart.Data():
                    found[-1] = (found[-1][0], found[-1][1] + event.data)
    parser.close()
    return found


def test_the_sample_has_every_kind() -> None:
    made = {number % len(KINDS) for number in range(0, ALL, STEP)}
    assert len(made) == len(KINDS)
