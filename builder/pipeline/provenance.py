"""What was true of a build and isn't part of its wheels: an in-toto statement with SLSA provenance v1.

`statement.BUILD_TYPE` fixes what the parameters mean; ``docs/provenance.md`` says it for readers. What a user asked for are
the external parameters, what the run made of it the internal ones; all that went in stands in the resolved dependencies by
its digest. SLSA has no field for host, gate and audit: they are byproducts, each with its JSON as annotations, so that
readers which know only the published schema read all of it. Values of variables whose names look secret are never written.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import builder
from builder.digest import sha256_bytes
from builder.errors import is_secret, scrubbed
from builder.events import parse_line
from builder.pipeline import gated
from builder.values import fields
from builder.wheel import pack
from builder.wheel.sbom import purl
from builder.wheelhouse import statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.gate.ccache import Statistics
    from builder.gate.tally import Summary
    from builder.pipeline.attempt import Attempt
    from builder.stages import EnvLock, Host, Nested, Pin, Request, Wheel

__all__ = ["BUILDER", "provenance"]

BUILDER = "urn:spark-build:local"

#: A key that looks secret inside of a text, as in ``--set 'build.env={ TOKEN = "…" }'``, with its value.
_INSIDE = re.compile(
    r"""([\w.-]+)(["']?\s*[=:]\s*(?:(?:Bearer|Basic|Token)\s+)?)("[^"]*"|'[^']*'|[^\s,}"']+)""", re.IGNORECASE
)
#: The same of an option, as in ``--token …``; what follows one that looks secret and begins with ``-`` is the next option.
_OPTION = re.compile(r"""(?<![\w-])(--?[\w.-]+)(\s+)("[^"]*"|'[^']*'|[^\s"'-][^\s"']*)""")

Json = dict[str, Any]


def provenance(attempt: Attempt, wheels: Sequence[Wheel]) -> Json:
    """Return the statement about `wheels`; publishing makes one of it for each."""
    return {
        "_type": statement.STATEMENT,
        "subject": [{"name": wheel.filename, "digest": {"sha256": wheel.sha256}} for wheel in wheels],
        "predicateType": statement.PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": statement.BUILD_TYPE,
                "externalParameters": _external(attempt),
                "internalParameters": _internal(attempt),
                "resolvedDependencies": list(_dependencies(attempt)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"spark-build": builder.__version__}},
                "metadata": _metadata(attempt),
                "byproducts": [
                    _byproduct(statement.RUN, _run(attempt, wheels)),
                    *(
                        _byproduct(f"{wheel.filename}.audit", attempt.reports[wheel.sha256].as_json())
                        for wheel in wheels
                        if wheel.sha256 in attempt.reports
                    ),
                ],
            },
        },
    }


def _external(attempt: Attempt) -> Json:
    """Return what was asked for, in the words of recipe, site and user."""
    one, pin = attempt.one, attempt.one.plan.pin
    request: Request = one.request
    layer = attempt.world.stack.get(one.plan.recipe)
    asked = {
        "repo": scrubbed(request.repo) if request.repo else None,
        "pulls": list(request.pulls) or None,
        "outputs": [output.name for output in one.outputs],
        "python": request.python,
        "target": request.target,
        "arch": list(one.arch),
        "torch": request.torch,
        "cuda": request.cuda,
        "settings": _told(request.settings) or None,
        "variants": dict(request.variants) or None,
        "layer": _within(layer.values) if layer else None,
        "env": _told({**attempt.world.config.build.get("env", {}), **request.env}) or None,
        "isolation": request.isolation,
    }
    return {
        "recipe": one.plan.recipe,
        "recipe-file": one.loaded.path.name,
        "source": {"url": scrubbed(pin.url), "ref": pin.ref, **pin.identity()},
        **{key: value for key, value in asked.items() if value is not None},
    }


def _told(values: Mapping[str, str]) -> dict[str, str]:
    """Return `values` without what is secret: by the variable's name, in a URL, or by a key inside of a text."""

    def hidden(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}***" if is_secret(found[1]) else found[0]

    def told(value: str) -> str:
        return _OPTION.sub(hidden, _INSIDE.sub(hidden, scrubbed(value)))

    return {name: "***" if is_secret(name) else told(value) for name, value in values.items()}


def _within(table: Mapping[str, Any]) -> Json:
    """Return what a stack file says about a recipe without what is secret."""

    def told(value: Any) -> Any:  # noqa: ANN401  # a TOML value
        if isinstance(value, list):
            return [told(one) for one in value]
        return _within(value) if isinstance(value, dict) else value

    texts = _told({name: value for name, value in table.items() if isinstance(value, str)})
    return {name: texts.get(name) or told(value) for name, value in table.items()}


def _internal(attempt: Attempt) -> Json:
    plan, request = attempt.one.plan, attempt.one.request
    cache = request.compile_cache or attempt.world.config.compile_cache.get("url")
    return {
        "fingerprint": plan.inputs.fingerprint,
        "label": plan.label,
        "inputs-schema": plan.inputs.document["schema"],
        "jobs": plan.jobs,
        "memory": request.memory_bytes,
        "reserve": request.reserve_bytes,
        "compile-cache": scrubbed(cache) if cache else None,
        "offline": request.offline,
        "force": request.force,
        "isolation": attempt.level.level,
    }


def _nested(one: Nested) -> Json:
    """Return what the tree pulled in under one name; of what was put in its place the bytes are known, and no place."""
    if one.pin is None:
        return {"name": f"nested {one.id}", "annotations": {"replaced": one.digest}}
    if one.kind == "git":
        return {"name": f"nested {one.id}", "uri": _git(one.pin.url), "digest": {"gitCommit": one.pin.commit or ""}}
    return {
        "name": f"nested {one.id}",
        "uri": scrubbed(one.pin.url),
        "digest": {"sha256": one.pin.tree.partition(":")[2]},
    }


def _dependencies(attempt: Attempt) -> Iterator[Json]:
    """Yield all that went in: the source with what is nested in it, patches, build requirements, tools, other recipes."""
    document: Mapping[str, Any] = attempt.one.plan.inputs.document
    yield _source(attempt.one.plan.pin)
    for sub in attempt.one.plan.pin.submodules:
        yield {"name": f"submodule {sub.path}", "uri": _git(sub.url), "digest": {"gitCommit": sub.commit}}
    yield from map(_nested, attempt.one.nested)
    for pull in attempt.one.plan.pin.pulls:
        yield {"name": f"pull request {pull.number}", "digest": {"sha256": pull.sha256}}
    for patch in document["patches"]:  # of the candidates those that the tree lacked
        yield {"name": f"patch {patch['id']}", "digest": {"sha256": patch["sha256"]}}
    for lock in attempt.one.locks:
        yield from _requirements(lock)
    yield from _tools(attempt.one.plan.host)
    if attempt.one.torch:
        identity = attempt.one.torch.identity()
        yield {"name": "torch", "uri": purl("pypi", "torch", attempt.one.torch.version), "annotations": identity}
    for one in attempt.one.depends:
        yield {"name": f"recipe {one.plan.recipe}", "annotations": {"fingerprint": one.plan.inputs.fingerprint}}
    for path, digest in document["paths"].items():
        yield {"name": f"files at {path}", "annotations": {"digest": digest}}


def _source(pin: Pin) -> Json:
    kind, _colon, digest = pin.tree.partition(":")
    match kind, pin.commit:
        case "git", str(commit):
            uri = _git(pin.url) + (f"@{pin.ref}" if pin.ref else "")
            return {"name": "source", "uri": uri, "digest": {"gitCommit": commit, "gitTree": digest}}
        case "sha256", _:
            return {"name": pin.filename or "source", "uri": scrubbed(pin.url), "digest": {"sha256": digest}}
    return {"name": "source", "uri": scrubbed(pin.url), "annotations": {"tree": pin.tree, "commit": pin.commit}}


def _git(url: str) -> str:
    return f"git+{scrubbed(url)}"


def _requirements(lock: EnvLock) -> Iterator[Json]:
    """Yield what the environment of one output was locked to. One of several files of a version was installed."""
    for package in lock.packages:
        hashes = list(package.sha256)
        one: Json = {"name": f"{lock.output} requires {package.name}"}
        one["uri"] = purl("pypi", package.name, package.version)
        if len(hashes) == 1:
            one["digest"] = {"sha256": hashes[0]}
        elif hashes:
            one["annotations"] = {"sha256-one-of": hashes}
        yield one


def _tools(host: Host) -> Iterator[Json]:
    """Yield what was found on the machine; a digest may be that of a tree, so it stands under no algorithm's name."""
    python = host.interpreter
    found = [("python", python.version, python.digest), ("glibc", host.libc, None)]
    found += [("cuda-toolkit", host.cuda.version, host.cuda.digest)] if host.cuda else []
    found += [(tool.name, tool.version, tool.digest) for tool in host.tools]
    for name, version, digest in found:
        yield {"name": f"tool {name}", "uri": purl("generic", name, version)} | (
            {"annotations": {"digest": digest}} if digest else {}
        )


def _metadata(attempt: Attempt) -> Json:
    """Return who this run was; it began when its first event was written."""
    finished = _moment(attempt.world.clock())
    started = _started(attempt.space.logs / "events.jsonl") or finished
    number = attempt.space.attempt
    return {
        "invocationId": f"{attempt.one.plan.inputs.fingerprint}/{number}/{started}",
        "startedOn": started,
        "finishedOn": finished,
    }


def _started(events: Path) -> str:
    try:
        with events.open(encoding="utf-8") as stream:
            return str(parse_line(stream.readline())[0].get("t", ""))
    except (OSError, ValueError):
        return ""


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _byproduct(name: str, value: Json) -> Json:
    """Return a JSON document that came out of the run; the digest is that of its text as written here."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return {
        "name": name,
        "mediaType": "application/json",
        "digest": {"sha256": sha256_bytes(text)},
        "annotations": value,
    }


def _run(attempt: Attempt, wheels: Sequence[Wheel]) -> Json:
    plan, host = attempt.one.plan, attempt.one.plan.host
    return {
        "wheels": [{"name": wheel.filename, "sha256": wheel.sha256} for wheel in wheels],
        "attempt": attempt.space.attempt,
        "isolation": {
            "level": attempt.level.level,
            "path": str(attempt.space.inside) if attempt.level.fixed_path else None,
            "why": attempt.level.reason,
        },
        "host": {"machine": host.machine, "cores": host.cores, "memory": host.memory_bytes},
        "gate": {
            name: {**_fields(account.gate), "cache": _fields(account.cache)}
            for name, account in attempt.accounts.items()
        },
        "units": json.loads(gated.history(attempt.world).export(plan.inputs.fingerprint[:12])),
        "compressor": pack.compressor(),
    }


def _fields(value: Summary | Statistics) -> Json:
    return {one.name.replace("_", "-"): getattr(value, one.name) for one in fields(value)}
