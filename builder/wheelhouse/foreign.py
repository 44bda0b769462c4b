"""A wheel from elsewhere: judged, and when it is one of ours, filed under what it says of its making."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from builder import bounded
from builder.digest import sha256_json
from builder.errors import CheckRefused, UsageError
from builder.values import dataclass, replace
from builder.wheel import label, problems, read
from builder.wheelhouse import names, publish, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored, Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Foreign", "add", "check", "judge", "kept", "vouch"]

#: A record has the label that was planned; a rebuild with other bits has ``r2`` at its end.
_REVISION = re.compile(r"(?<=\.g[0-9a-f]{10})r\d+$")

#: Seconds that a clock elsewhere may be ahead of ours.
_ASTRAY_S = 86_400.0

#: Bytes of a signature.
_SEAL = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A wheel that was found good. `fingerprint` is empty and `inputs` None for one that spark-build didn't make.

    `record` is the record that came beside it, `seal` that one's signature; None where there is none.
    """

    wheel: Wheel
    fingerprint: str
    recipe: str
    inputs: Mapping[str, Any] | None
    record: bytes | None = None
    seal: bytes | None = None


def add(
    house: Wheelhouse,
    every: Sequence[Foreign],
    *,
    sign: Callable[[bytes], bytes] | None = None,
    let_pass: Mapping[str, Sequence[Mapping[str, str]]] = MappingProxyType({}),
    also: Sequence[str] = (),
) -> list[tuple[Stored, bool]]:
    """File wheels in channel ``local`` and append them to the channels `also`, in one step.

    Returns each as stored, and whether the same bytes were there already. The record that came with it is kept as it is,
    with its signature; `sign` signs it where nobody did: that we took it in, who made the wheel stands in it. Without one,
    the record says that the file was taken in. Where it is from, and what was `let_pass` (by sha256: id, file, reason), is
    remembered for `kept`, and survives a reindex.

    Raises as `check` does.
    """
    there = {}
    for sha256 in (one.wheel.sha256 for one in every):
        more = {"accepted": [dict(each) for each in let_pass.get(sha256, ())]}
        there[sha256] = bool(house.catalogue.stored("sha256=? AND state<>'unpublished'", (sha256,)))
        told = kept(house, sha256)
        if not there[sha256]:
            house.remember(publish.FOREIGN, sha256, {"time": int(house.clock()), **more})
        elif told and more["accepted"]:
            house.remember(publish.FOREIGN, sha256, {**told, **more})
    stored = publish.publish_sets(house, [([one.wheel], _filing(house, one, sign, also)) for one in every])
    return [(one, there[one.sha256]) for one in stored]


def check(house: Wheelhouse, every: Sequence[Foreign]) -> None:
    """Return when all of them can be filed, one after the other.

    Raises UsageError ``name-taken`` where a name stands for other bytes, CheckRefused ``build-taken`` where another wheel
    has the fingerprint that one claims, ``label-lies`` where the time in a label is none, or of the future.
    """
    given: dict[tuple[Any, ...], str] = {}
    for one in every:
        _require_past(house, one)
        names.known(house, one.wheel, _filing(house, one, None))
        keys = [names.meaning(one.wheel.filename), *([(one.fingerprint, one.wheel.output)] if one.fingerprint else [])]
        for key in keys:
            if given.setdefault(key, one.wheel.sha256) != one.wheel.sha256:
                raise UsageError(
                    "name-taken",
                    f"{one.wheel.filename} is given twice, with other bytes",
                    help="add the one that you mean",
                )


def _require_past(house: Wheelhouse, one: Foreign) -> None:
    """Raise where a label would be above that of whatever is built from now on: nobody would get any of it."""
    if not one.fingerprint:
        return
    moment = label.moment(one.wheel.version)
    if moment is None or moment > house.clock() + _ASTRAY_S:
        raise CheckRefused(
            "label-lies",
            f"{one.wheel.filename} carries a label of the future"
            if moment is not None
            else f"{one.wheel.filename} carries a label with no such time in it",
            help="the clock was wrong where it was built, or it was changed afterwards; build it here instead",
            run=("date -u",),
        )


def kept(house: Wheelhouse, sha256: str) -> Mapping[str, Any] | None:
    """Return what is remembered of a wheel from elsewhere (``time``, ``accepted``); None for one that was built here."""
    return house.recall(publish.FOREIGN, sha256) or None


def judge(path: Path) -> Foreign:
    """Return the wheel at `path` when it is what it says, with the record that lies beside it.

    Raises UsageError ``wheel-missing``; CheckRefused as `wheel.read.check` does, ``label-lies`` when it carries a label that
    isn't of the inputs in it, ``record-damaged``, ``record-other`` or ``record-contradicts`` when the record is none, about
    other bytes, or says something else than the wheel itself.
    """
    if not path.is_file():
        raise UsageError("wheel-missing", f"there is no file {path}")
    read.check(path)
    wheel = read.inspect(path)
    claimed, inputs = label.claimed(wheel.version), _inputs(path)
    if not claimed and inputs is None:
        return _with_record(Foreign(wheel=wheel, fingerprint="", recipe="", inputs=None))
    fingerprint = sha256_json(inputs) if inputs is not None else ""
    if inputs is None or claimed != fingerprint[:10]:
        raise CheckRefused(
            "label-lies",
            f"{wheel.filename} carries a label that isn't of the inputs in it",
            cause=f"its inputs give {fingerprint[:10]}" if inputs is not None else "it holds no inputs",
            help="it was changed after it was built; build it here instead",
        )
    made = replace(wheel, output=_output(wheel, inputs))
    return _with_record(Foreign(wheel=made, fingerprint=fingerprint, recipe=str(inputs.get("name", "")), inputs=inputs))


def vouch(one: Foreign, holds: Callable[[bytes, bytes], str], *, required: bool) -> None:
    """Return when the signature that came along `holds`, which is given record and signature and raises CheckRefused.

    With `required`, whatever claims something has to be signed: a record, and a wheel that says it is one of ours.
    Raises what `holds` does, and CheckRefused ``signature-missing``.
    """
    name = one.wheel.filename
    if one.record is not None and one.seal is not None:
        try:
            holds(one.record, one.seal)
        except CheckRefused as error:
            raise CheckRefused(
                error.code,
                f"{name}: {error.summary}",
                cause=error.cause,
                help=error.help or "get wheel, record and signature again from where they came from",
                run=error.run,
            ) from error
    elif required and (one.record is not None or one.inputs is not None):
        record = publish.sidecar(one.wheel.path)
        raise CheckRefused(
            "signature-missing",
            f"{name}: nobody vouches for it",
            cause=f"{publish.signature(one.wheel.path).name if one.record is not None else record.name} isn't beside it",
            help="signing.signers in the configuration asks for signatures; sign its record if you trust where it is from"
            if one.record is not None
            else "signing.signers in the configuration asks for signatures; get record and signature from where it is from",
            run=(f"ssh-keygen -Y sign -n spark-build -f KEY {shlex.quote(str(record))}",)
            if one.record is not None
            else (),
        )


def _filing(
    house: Wheelhouse, one: Foreign, sign: Callable[[bytes], bytes] | None, also: Sequence[str] = ()
) -> publish.Filing:
    return publish.Filing(
        fingerprint=one.fingerprint,
        recipe=one.recipe,
        inputs=one.inputs,
        provenance=_added(one, house.clock()),
        channel="local",
        also=tuple(also),
        sign=sign,
        brought={one.wheel.sha256: (one.record, one.seal)} if one.record is not None else {},
        foreign=True,
    )


def _inputs(path: Path) -> dict[str, Any] | None:
    with zipfile.ZipFile(path) as archive:
        name = f"{read.dist_info(archive, path.name)}/spark-build/inputs.json"
        if name not in archive.namelist():
            return None
        try:
            document = json.loads(read.read_text(archive, name, path.name))
            sha256_json(document)
        except RecursionError:
            raise CheckRefused("wheel-damaged", f"{path.name}: {name} is nested too deep") from None
        except (ValueError, TypeError, *problems.DAMAGE) as error:
            raise CheckRefused("wheel-damaged", f"{path.name}: {name} can't be read", cause=str(error)) from error
    if not isinstance(document, dict):
        raise CheckRefused("wheel-damaged", f"{path.name}: {name} is no object")
    return document


def _output(wheel: Wheel, inputs: Mapping[str, Any]) -> str:
    """Return the recipe's name for the output that this wheel is."""
    requires = inputs.get("requires")
    for output in requires if isinstance(requires, dict) else ():
        if read.normalised(str(output)) == wheel.project:
            return str(output)
    return wheel.output


def _with_record(one: Foreign) -> Foreign:
    """Return `one` with the record beside it and its signature."""
    record, seal = publish.sidecar(one.wheel.path), publish.signature(one.wheel.path)
    try:
        data, said = statement.load(record)
    except FileNotFoundError:
        return one
    except ValueError as error:
        raise _bad(record, "record-damaged", "is no record that can be read", str(error)) from error
    if statement.subject(said) != one.wheel.sha256:
        found = f"it is about {statement.subject(said)[:16] or 'nothing'}, the wheel is {one.wheel.sha256[:16]}"
        raise _bad(record, "record-other", "isn't about this wheel", found)
    if odd := statement.odd(said):
        raise _bad(record, "record-damaged", "isn't as records are", f"not what they should be: {', '.join(odd)}")
    if wrong := _contradictions(one, said):
        raise _bad(record, "record-contradicts", "says something else than the wheel", "; ".join(wrong))
    try:
        sealed: bytes | None = bounded.read(seal, _SEAL)
    except FileNotFoundError:
        sealed = None
    except ValueError as error:
        raise _bad(seal, "signature-damaged", "is no SSH signature", str(error)) from error
    return replace(one, record=data, seal=sealed)


def _bad(file: Path, code: str, what: str, cause: str) -> CheckRefused:
    return CheckRefused(
        code,
        f"{file.name} {what}",
        cause=cause,
        help="get the wheel and what lies beside it again from one place; without a record it is added as a file that nobody"
        " says anything of",
    )


def _contradictions(one: Foreign, record: Mapping[str, Any]) -> list[str]:
    """Return what a record claims of fingerprint, recipe and label that the wheel itself tells otherwise.

    One that isn't ours has none of them; what others' records call so is their affair then.
    """
    said = statement.claims(record) if one.inputs is not None else statement.facts(record)
    local = one.wheel.version.partition("+")[2]
    mark = ".".join(local.split(".")[:2]) if label.claimed(one.wheel.version) else ""
    own = {"fingerprint": one.fingerprint, "recipe": one.recipe, "label": mark}
    return [
        f"{name} {said[name]}, in the wheel {value or 'none'}"
        for name, value in own.items()
        if said.get(name) and _REVISION.sub("", said[name]) != _REVISION.sub("", value)
    ]


def _added(one: Foreign, now: float) -> dict[str, Any]:
    return {
        "predicateType": statement.ADDED,
        "predicate": {
            "fingerprint": one.fingerprint,
            "recipe": one.recipe,
            "added": {"time": int(now), "filename": one.wheel.filename},
        },
    }
