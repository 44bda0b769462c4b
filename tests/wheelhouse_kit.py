"""Tiny valid wheels, wheelhouses on small disks, and child processes that are killed in the middle of their work."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.digest import canonical_json, sha256_file, sha256_json
from builder.wheel import label, read
from builder.wheelhouse import Wheelhouse, channel, states
from builder.wheelhouse.publish import Filing, sidecar, signature
from builder.wheelhouse.publish import publish as publish_wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType, FrameType

    from builder.stages import Stored, Wheel

ROOT = Path(__file__).resolve().parent.parent
ALSO = ("team/old", "team/new")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def make_wheel(
    folder: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    text: bytes = b"VALUE = 1\n",
    size: int = 0,
    inputs: Mapping[str, Any] | None = None,
    record: bytes | None = None,
    requires: Sequence[str] = (),
) -> Path:
    """Write a wheel that any installer takes; `size` adds so many bytes that don't compress, `record` replaces RECORD."""
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": text,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.9\n{needs}".encode()
        ),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if size:
        rng = random.Random(f"{name}{version}")  # noqa: S311  # just bytes
        parts = [rng.randbytes(min(size - at, 1 << 27)) for at in range(0, size, 1 << 27)]  # it makes no more at once
        files[f"{name}/data.bin"] = b"".join(parts)
    if inputs is not None:
        files[f"{info}/spark-build/inputs.json"] = canonical_json(dict(inputs))
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = record or "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), data)  # the same bytes each time
    return target


def wheel(folder: Path, name: str = "tiny", version: str = "1.0", **more: Any) -> Wheel:  # noqa: ANN401  # passed on
    """Return such a wheel as the packing step hands it over."""
    return read.inspect(make_wheel(folder, name, version, **more))


def own_wheel(folder: Path, name: str = "tiny", version: str = "1.0", *, inputs: Mapping[str, Any]) -> Path:
    """Write a wheel as spark-build makes it: labelled, with its inputs inside."""
    mark = label.make(1_700_000_000.0, sha256_json(dict(inputs)))
    return make_wheel(folder, name, label.labelled(version, mark), inputs=inputs)


def opened(root: Path, **more: Any) -> Wheelhouse:  # noqa: ANN401  # passed on
    return Wheelhouse.open(root, clock=time.time, **more)


def publish(
    house: Wheelhouse,
    wheels: Sequence[Wheel],
    *,
    fingerprint: str = "f" * 64,
    recipe: str = "tiny",
    inputs: Mapping[str, Any] | None = None,
    channel: str | None = "local",
    also: Sequence[str] = (),
    sign: Callable[[bytes], bytes] | None = None,
) -> tuple[Stored, ...]:
    filing = Filing(
        fingerprint=fingerprint,
        recipe=recipe,
        inputs=inputs,
        provenance={"version": 1},
        channel=channel,
        also=tuple(also),
        sign=sign,
    )
    return publish_wheels(house, list(wheels), filing)


def seal(record: bytes) -> bytes:
    """Return what stands for a signature where only its way matters."""
    return f"sealed {hashlib.sha256(record).hexdigest()}\n".encode()


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that the catalogue says and a reindex has to bring back, table by table."""
    with contextlib.closing(sqlite3.connect(root / "catalog.sqlite3")) as db:
        return {
            # The last column is the file's time: that of the file there now, whoever put it there.
            "wheels": [row[:-1] for row in db.execute("SELECT * FROM wheels ORDER BY filename")],
            "names": db.execute("SELECT * FROM names ORDER BY 1").fetchall(),
            "inputs": db.execute("SELECT * FROM inputs ORDER BY 1").fetchall(),
            "plans": db.execute("SELECT * FROM plans ORDER BY 1").fetchall(),
            "memory": db.execute("SELECT kind, key, value FROM memory ORDER BY 1, 2").fetchall(),
            "channels": db.execute("SELECT * FROM channels ORDER BY 1").fetchall(),
            "members": db.execute("SELECT channel, sha256 FROM members ORDER BY channel, position").fetchall(),
        }


def read_all(root: Path) -> None:
    """Read what the catalogue says as commands do."""
    with opened(root) as house:
        house.list_wheels(include_unpublished=True)
        list(house.known("tiny"))


def whole(root: Path, *, sealed: bool = False) -> dict[str, str]:
    """Assert that files and catalogue agree after the next opening, and return name and sha256 of what is listed.

    Where a record has a seal, it is that record's; each has one when `sealed`.
    """
    with opened(root) as house:
        listed = {one.path: one for one in house.list_wheels(include_unpublished=True)}
    on_disk = {path for path in (root / "wheels").rglob("*") if path.is_file() and path.suffix == ".whl"}
    assert on_disk == set(listed)
    for path, one in listed.items():
        assert sha256_file(path) == one.sha256
        assert sidecar(path).exists()
        if sealed or signature(path).exists():
            assert signature(path).read_bytes() == seal(sidecar(path).read_bytes())
    records = {path.name.removesuffix(".provenance.json") for path in (root / "wheels").rglob("*.json")}
    assert records == {path.name for path in listed}
    seals = {path.name.removesuffix(".provenance.json.sig") for path in (root / "wheels").rglob("*.sig")}
    assert seals <= {path.name for path in listed}
    incoming = root / "wheels" / ".incoming"
    assert not incoming.exists() or not list(incoming.iterdir())
    return {one.filename: one.sha256 for one in listed.values()}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of `size` at `folder`; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Write a file until the disk is full but for `leave` bytes."""
    file = folder / "ballast"
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    if leave:
        os.truncate(file, max(0, file.stat().st_size - leave))
    return file


def child(code: str, *words: str, prefix: Sequence[str] = (), **more: Any) -> subprocess.Popen[str]:  # noqa: ANN401  # passed on
    """Start Python on `code` with `words` as its arguments, this package and this kit importable."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )


def finished(process: subprocess.Popen[str], *, code: int | None = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert code is None or process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    return out


# --- a kill at every line, run in a process of its own: python -c "from tests import wheelhouse_kit; ..."


def kill_at_every_line(place: str, operation: str, parts: str, part: str) -> None:
    """Do `operation` in a fork that kills itself at its n-th line of builder/wheelhouse, for one part of all n.

    After each kill the wheelhouse has to be whole, doing it again has to succeed, and a reindex has to change nothing.
    """
    number = int(part)
    while True:
        root = Path(place) / f"{operation}-{number}"
        before = _prepare(root, operation)
        killed = _killed_at(number, root, operation)
        _check(root, operation, before, done=not killed)
        shutil.rmtree(root)
        if not killed:
            print(number)  # noqa: T201  # the test reads it
            return
        number += int(parts)


def _prepare(root: Path, operation: str) -> set[str]:
    with opened(root / "house") as house:
        if operation == "also":
            publish(house, [wheel(root / "dist", "three")], fingerprint="3" * 64, sign=seal)
            channel.promote(house, "team/old", house.list_wheels())
        if operation in {"remove", "reindex", "replace", "promote", "rollback", "withhold"}:
            publish(house, [wheel(root / "dist", "one"), wheel(root / "dist", "two")], inputs={"name": "x"}, sign=seal)
            house.remember("lock", "k", {"a": 1})
            house.first_planned("e" * 64)
            channel.promote(house, "team/old", house.list_wheels())
        if operation == "rollback":
            channel.promote(house, "team/old", house.list_wheels()[:1])
        if operation in {"withhold", "reindex"}:
            states.set(house, [house.get("two-1.0-py3-none-any.whl")], "yanked", "wrong")
        if operation == "replace":
            house.get("two-1.0-py3-none-any.whl").path.unlink()
        return {one.filename for one in house.list_wheels()}


def _operate(root: Path, operation: str) -> None:
    if operation == "reindex":
        from builder.wheelhouse.reindex import reindex  # noqa: PLC0415

        reindex(root / "house", clock=time.time)
        return
    with opened(root / "house") as house:
        match operation:
            case "publish" | "replace":
                publish(
                    house, [wheel(root / "dist", "one"), wheel(root / "dist", "two")], inputs={"name": "x"}, sign=seal
                )
            case "also":
                made = [wheel(root / "dist", "one"), wheel(root / "dist", "two")]
                publish(house, made, inputs={"name": "x"}, also=ALSO, sign=seal)
            case "rollback":
                channel.rollback(house, "team/old", 1)
                channel.append(house, "team/old", [house.get("one-1.0-py3-none-any.whl")])
            case "withhold":
                states.set(house, list(house.list_wheels(include_unpublished=True)), "quarantined", "bad")
                states.set(house, [house.get("two-1.0-py3-none-any.whl")], "published")
                states.status(house, "one", "archived", "old")
            case "promote":
                channel.promote(house, "team/new", tuple(reversed(house.list_wheels())))
                channel.promote(house, "team/old", [house.get("two-1.0-py3-none-any.whl")])
            case "remove":
                house.remove(house.get("one-1.0-py3-none-any.whl"))
            case "remember":
                house.remember("lock", "key", {"text": "x" * 100})
                house.first_planned("a" * 64)


def _check(root: Path, operation: str, before: set[str], *, done: bool) -> None:
    from builder.wheelhouse.reindex import reindex  # noqa: PLC0415

    house, both = root / "house", {"one-1.0-py3-none-any.whl", "two-1.0-py3-none-any.whl"}
    after = {"publish": both, "replace": both, "remove": both - {"one-1.0-py3-none-any.whl"}}.get(operation, before)
    after = {*both, *before} if operation == "also" else after
    if operation == "replace" and not done:  # the lost file may be there or not; it must not be another's
        with opened(house):
            pass
    else:
        found = set(whole(house, sealed=True))
        assert found == after if done else found in (before, after), (found, before, after)
        if operation == "also":  # the wheels and both channels in one step
            with opened(house) as now:
                old, new = (now.catalogue.rows("SELECT 1 FROM members WHERE channel=?", (one,)) for one in ALSO)
                assert (len(old), len(new)) == ((3, 2) if both <= found else (1, 0))
    with contextlib.suppress(LookupError):
        if operation == "remove" and set(whole(house, sealed=True)) == after:
            raise LookupError  # done by the next opening
        _operate(root, operation)
    assert set(whole(house, sealed=True)) == after
    kept = contents(house)
    reindex(house, clock=time.time)
    assert contents(house) == kept
    assert set(whole(house, sealed=True)) == after


def _killed_at(number: int, root: Path, operation: str) -> bool:
    """Return whether the operation was killed at its line `number` of builder/wheelhouse; it must end well else."""
    inside = f"{os.sep}builder{os.sep}wheelhouse{os.sep}"
    return killed_at(number, lambda: _operate(root, operation), lambda code: inside in code.co_filename)


def killed_at(number: int, operate: Callable[[], object], where: Callable[[CodeType], bool]) -> bool:
    """Do something in a fork that kills itself at its line `number` of those that are `where`; return whether it was killed.

    It must end well else. To be called in a process without threads: see `child`.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _trace_to(number, where)
            operate()
            sys.settrace(None)
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it was
            import traceback  # noqa: PLC0415

            traceback.print_exc()
            os._exit(1)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the operation failed"
    return False


def _trace_to(number: int, where: Callable[[CodeType], bool]) -> None:
    """Let this process kill itself when it comes to its line `number` of those that are `where`."""
    seen = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401  # itself
        nonlocal seen
        if not where(frame.f_code):
            return None
        if event == "line":
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def kill_in(name: str) -> None:
    """Let this process kill itself when it comes into a function of that name."""

    def trace(frame: FrameType, _event: str, _argument: object) -> None:
        if frame.f_code.co_name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.settrace(trace)
