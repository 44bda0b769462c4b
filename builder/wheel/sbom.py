"""The software bill of materials inside a wheel: CycloneDX 1.6 JSON at ``.dist-info/sboms/`` (PEP 770).

A pure function of inputs document, output, version and label: the same fingerprint and label give the same bytes on every
machine. So it holds no path, no host, no user; its time is the source's, its serial number a UUIDv5. The place that a source
came from is no input (a fork with the same commit gives the same wheel), and so isn't here: a git source is named by its
Software Heritage id, an archive by its sha256. The statement beside the wheel has the URL.

https://cyclonedx.org/docs/1.6/json/, https://packaging.python.org/en/latest/specifications/binary-distribution-format/,
https://github.com/package-url/purl-spec
"""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from builder import stages
from builder.digest import canonical_json, sha256_json
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["MEMBER", "document", "purl", "write"]

#: Below ``.dist-info``.
MEMBER = "sboms/spark-build.cdx.json"

_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"


def write(inputs: Mapping[str, Any], *, output: str, version: str, label: str) -> bytes:
    """Return the bytes of `document`."""
    return canonical_json(document(inputs, output=output, version=version, label=label))


def document(inputs: Mapping[str, Any], *, output: str, version: str, label: str) -> dict[str, Any]:
    """Return the bill of the wheel that `output` of these `inputs` is; `version` is the wheel's, with its `label`."""
    fingerprint = sha256_json(inputs)
    wheel = _wheel(inputs, output, version, fingerprint, label)
    used = sorted(_used(inputs, output), key=lambda one: str(one["bom-ref"]))
    moment = max(int(inputs["source"]["time"]), stages.ZIP_EPOCH)
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'urn:spark-build:{fingerprint}:{output}:{version}')}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "spark-build"}]},
            "component": wheel,
        },
        "components": used,
        "dependencies": [{"ref": wheel["bom-ref"], "dependsOn": [one["bom-ref"] for one in used]}],
        # What the project itself carries along (header libraries, vendored sources) isn't looked for.
        "compositions": [{"aggregate": "incomplete", "assemblies": [wheel["bom-ref"]]}],
    }


def purl(kind: str, name: str, version: str = "", **qualifiers: str) -> str:
    """Return a package URL of `name`, which may hold a namespace and slashes."""
    tail = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()) if value)
    return (
        f"pkg:{kind}/{quote(name, safe='/')}"
        + (f"@{quote(version, safe=':')}" if version else "")
        + (f"?{tail}" if tail else "")
    )


def _wheel(inputs: Mapping[str, Any], output: str, version: str, fingerprint: str, label: str) -> dict[str, Any]:
    name, target = normalised(output), inputs["target"]
    told = {
        "fingerprint": fingerprint,
        "label": label,
        "recipe": str(inputs["name"]),
        "arch": " ".join(inputs["arch"]),
        **{f"target:{key}": str(value) for key, value in target.items() if value is not None},
    }
    return {
        "type": "library",
        "bom-ref": "wheel",
        "name": name,
        "version": version,
        "purl": purl("pypi", name, version),
        "properties": _properties(told),
    }


def _used(inputs: Mapping[str, Any], output: str) -> Iterator[dict[str, Any]]:
    """Yield all that the wheel was made from or with; what isn't in it has the scope ``excluded``."""
    source = inputs["source"]
    yield _source(str(inputs["name"]), source)
    for sub in source["submodules"]:
        yield _git(f"submodule:{sub['path']}", sub["path"], sub["commit"], url=sub["url"])
    for one in inputs.get("nested", ()):
        yield _nested(one)
    for pull in source["pulls"]:
        yield _patch(f"pull:{pull['number']}", f"pull request {pull['number']}", pull["sha256"])
    for patch in inputs["patches"]:
        yield _patch(f"patch:{patch['id']}", patch["id"], patch["sha256"])
    for package in inputs["requires"].get(output, ()):
        yield _package(package["name"], package["version"], package["sha256"])
    yield from _toolchain(inputs)
    for name, fingerprint in inputs["builds-on"].items():
        yield _tool(f"recipe:{name}", name, "", role="recipe", digest=fingerprint)
    # Where somebody put what a variable names is no fact of the wheel; its bytes are.
    for digest in sorted(set(inputs["paths"].values())):
        yield _tool(f"named:{digest}", "files that a variable names", "", role="named", digest=digest)


def _source(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    version = source["version"] or ""
    kind, _colon, digest = source["tree"].partition(":")
    if source["commit"] and kind == "git":
        one = _git("source", name, source["commit"], tree=(digest,), version=version)
    else:
        one = _component("source", "library", name, version, role="source")
        one["purl"] = purl("generic", name, version, checksum=f"sha256:{digest}" if kind == "sha256" else "")
        if kind == "sha256":
            one["hashes"] = [{"alg": "SHA-256", "content": digest}]
    told = {"kind": source["kind"], "tree": source["tree"], "describe": source["describe"] or ""}
    return _with(one, told)


def _git(
    ref: str, name: str, commit: str, *, url: str = "", tree: Sequence[str] = (), version: str = ""
) -> dict[str, Any]:
    """Return a git source: exact by its ids; `version` is what people call it. A commit of git's SHA-256 has no such id."""
    one = _component(ref, "library", name, version, role="source")
    url = url if re.match(r"(https?|ssh|git)://", url) else ""  # any other is a place on some machine
    if github := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url):
        one["purl"] = purl("github", github[1].lower(), commit)
    else:
        one["purl"] = purl("generic", name, version or commit, vcs_url=f"git+{url}@{commit}" if url else "")
    one["pedigree"] = {"commits": [{"uid": commit, **({"url": url} if url else {})}]}
    ids = [f"swh:1:rev:{commit}", *(f"swh:1:dir:{one}" for one in tree)]
    if known := [one for one in ids if len(one.rpartition(":")[2]) == 40]:  # noqa: PLR2004  # hex digits of a SHA-1
        one["swhid"] = known
    if url:
        one["externalReferences"] = [{"type": "vcs", "url": url}]
    return one


def _nested(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tree pulled in under one name; of what was put in its place only the bytes are known."""
    ref, name = f"nested:{one['id']}", one["id"]
    if "replaced" in one:
        return _with(_component(ref, "library", name, "", role="source"), {"digest": one["replaced"] or ""})
    if one["kind"] == "git":
        return _git(ref, name, one["commit"], url=one["url"])
    made = _component(ref, "library", name, "", role="source")
    digest = one["tree"].removeprefix("sha256:")
    made["purl"] = purl("generic", name, checksum=f"sha256:{digest}", download_url=one["url"])
    return {**made, "hashes": [{"alg": "SHA-256", "content": digest}]}


def _patch(ref: str, name: str, sha256: str) -> dict[str, Any]:
    one = _component(ref, "file", name, "", role="patch")
    return {**one, "hashes": [{"alg": "SHA-256", "content": sha256}]}


def _package(name: str, version: str, sha256: Sequence[str]) -> dict[str, Any]:
    """Return a build requirement. One of several files was installed: each is a distribution of its own then."""
    address = purl("pypi", normalised(name), version)
    one = _component(f"requires:{normalised(name)}", "library", name, version, role="requirement", scope="excluded")
    one["purl"] = address
    hashes = [[{"alg": "SHA-256", "content": digest}] for digest in sorted(sha256)]
    if len(hashes) == 1:
        one["hashes"] = hashes[0]
    elif hashes:
        one["externalReferences"] = [{"type": "distribution", "url": address, "hashes": some} for some in hashes]
    return one


def _toolchain(inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    host, torch = inputs["host"], inputs["torch"]
    python, cuda = host["python"], host["cuda"]
    yield _tool("tool:python", "python", python["version"], digest=python["digest"])
    yield _tool("tool:libc", "glibc", host["libc"])
    if cuda:
        yield _tool("tool:cuda", "cuda-toolkit", cuda["version"], digest=cuda["digest"])
    for name, tool in host["tools"].items():
        yield _tool(f"tool:{name}", name, tool["version"], digest=tool["digest"])
    if torch:
        told = {key: str(value) for key, value in torch.items() if key != "version" and value is not None}
        yield _with(_tool("torch", "torch", torch["version"]), told)


def _tool(ref: str, name: str, version: str, *, role: str = "toolchain", digest: str | None = None) -> dict[str, Any]:
    """Return something of the machine. Its digest may be that of a tree, so it stands under no algorithm's name."""
    one = _component(ref, "application", name, version, role=role, scope="excluded")
    return _with(one, {"digest": digest or ""})


def _component(ref: str, kind: str, name: str, version: str, *, role: str, scope: str = "") -> dict[str, Any]:
    one: dict[str, Any] = {"type": kind, "bom-ref": ref, "name": name, "properties": _properties({"role": role})}
    return one | ({"version": version} if version else {}) | ({"scope": scope} if scope else {})


def _with(one: dict[str, Any], told: Mapping[str, str]) -> dict[str, Any]:
    return {**one, "properties": [*one["properties"], *_properties(told)]}


def _properties(told: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"spark-build:{key}", "value": value} for key, value in told.items() if value]
