"""The lock: every source and build requirement of recipes, exact, in one file that people can read and compare.

``spark-build.lock`` is TOML: ``schema``, then a ``[[recipe]]`` for each. ``asked`` has the words that chose it, ``tables``
the digest of each table of the recipe that counts, ``source`` and ``nested`` the pins, ``requires`` the build environments
with the sha256 of every file that may be installed. ``digest`` covers the entry, so that a change by hand or by a merge is
noticed. Nothing in it is secret: what looks so is kept as ``***``, and has to be given again.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from builder import durable, pinned
from builder.digest import sha256_bytes, sha256_json
from builder.errors import UsageError
from builder.stages import EnvLock, Locked
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.digest import Json
    from builder.stages import Pin

__all__ = ["HIDDEN", "NAME", "SCHEMA", "Lock", "LockedRecipe", "differences", "read", "text_of", "write"]

#: The file's name in the working folder.
NAME = "spark-build.lock"

SCHEMA = 1

#: Stands for a value that isn't written down.
HIDDEN = "***"

_HEAD = """\
# Every source and build requirement, exact. `spark-build lock` writes this file; it isn't meant to be edited.
# `spark-build recipe NAME --locked` builds from it and refuses where something has changed, `--frozen` doesn't look.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedRecipe:
    """What a recipe was when it was locked.

    `asked` are the words that chose it, as `Request` names them; `layer` is what a stack file says about the recipe,
    `tables` maps each table that counts to its digest. `target` has machine, python (``cp312``), arch (the user's word) and
    cuda (``13.0``); `arch` is what the project gets. `torch` is None where the build uses none. `nested` holds pins by id,
    `replaced` the digests of what the user put in place of one, `patches` digests by id, in order. `env` holds variables
    that site and user set. `overrides` are requirements (``triton==…``) that an installer needs where other projects pin
    another.
    """

    name: str
    asked: Mapping[str, Any]
    layer: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, str]
    target: Mapping[str, str]
    arch: tuple[str, ...]
    torch: Mapping[str, Any] | None
    source: Pin
    nested: Mapping[str, Pin] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    patches: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    envs: Mapping[str, EnvLock]
    outputs: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    def facts(self) -> dict[str, tuple[str, str]]:
        """Return all that a build depends on by what people call it: a text to show, and one that is compared."""
        found: dict[str, tuple[str, str]] = {}
        for name, value in self.target.items():
            found[name] = (value, value)
        found["outputs"] = _plain(", ".join(self.outputs))
        found["arch of the project"] = _plain(" ".join(self.arch))
        if self.torch is not None:
            found["torch"] = (f"{self.torch['version']} ({self.torch['from']})", sha256_json(dict(self.torch)))
        found["source"] = _pin_text(self.source)
        found |= {f"nested source {name}": _pin_text(pin) for name, pin in self.nested.items()}
        found |= {f"path in place of {name}": (one[:12], one) for name, one in self.replaced.items()}
        found |= {f"patch {name}": (one[:12], one) for name, one in self.patches.items()}
        found["order of patches"] = _plain(", ".join(self.patches))
        found |= {f"variable {name}": _plain(value) for name, value in self.env.items()}
        for output, env in self.envs.items():
            for one in env.packages:
                found[f"{one.name} in the build of {output}"] = (one.version, sha256_json([one.version, *one.sha256]))
        found |= {f"[{name}] of the recipe": (digest, digest) for name, digest in self.tables.items()}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The recipes of a lock file, by name."""

    recipes: Mapping[str, LockedRecipe] = field(default_factory=dict)


def _plain(text: str) -> tuple[str, str]:
    return text, text


def _pin_text(pin: Pin) -> tuple[str, str]:
    name = pin.ref or pin.version or ""
    exact = pin.commit[:12] if pin.commit else (pin.filename or pin.tree[:19])
    return f"{name} {exact}".strip() if name != pin.commit else exact, sha256_json(pin.identity())


def differences(old: Lock, new: Lock) -> tuple[str, ...]:
    """Return in words what `new` has otherwise than `old`, recipe by recipe; nothing where builds would be the same."""
    found: list[str] = []
    for name in sorted({*old.recipes, *new.recipes}):
        before, after = old.recipes.get(name), new.recipes.get(name)
        if before is None or after is None:
            found.append(f"{name}: {'is gone' if after is None else 'is new'}")
        else:
            found += [f"{name}: {text}" for text in _changed(before.facts(), after.facts())]
    return tuple(found)


def _changed(old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            yield f"{key} is gone ({old[key][0]})"
        elif key not in old:
            yield f"{key} is new ({new[key][0]})"
        elif HIDDEN not in (old[key][1], new[key][1]) and old[key][1] != new[key][1]:
            before, after = old[key][0] or "none", new[key][0] or "none"
            yield f"{key}: {before} → {after}" if before != after else f"{key}: {before}, with other bytes"


# --- the file


def write(path: Path, lock: Lock) -> bool:
    """Leave `lock` at `path`, whole or not at all, and return whether the file had to be changed."""
    import os  # noqa: PLC0415

    data = text_of(lock).encode()
    if path.is_file() and path.read_bytes() == data:
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        durable.write_synced(beside, data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    durable.sync_folder(path.parent)
    return True


def text_of(lock: Lock) -> str:
    """Return the file's text: the same for the same lock."""
    import tomli_w  # noqa: PLC0415  # only writers need it

    entries = [_sealed(_as_toml(lock.recipes[name])) for name in sorted(lock.recipes)]
    return _HEAD + tomli_w.dumps({"schema": SCHEMA, "recipe": entries}, indent=2)


def read(path: Path) -> Lock:
    """Return the lock at `path`.

    Raises UsageError ``lock-missing``, ``lock-schema``, or ``lock-damaged`` where it isn't as `write` left it.
    """
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        text = f"there is no lock {path}"
        raise UsageError("lock-missing", text, run=("spark-build lock NAME", "spark-build lock stack.toml")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        conflict = "it holds a conflict of a merge; " if b"\n<<<<<<< " in path.read_bytes() else ""
        raise _damaged(path, f"{conflict}{error}") from None
    if table.get("schema") != SCHEMA:
        raise UsageError(
            "lock-schema",
            f"{path} has schema {table.get('schema')}, this spark-build knows {SCHEMA}",
            help="another spark-build wrote it: use that one, or make the lock anew",
            run=(f"rm {path}", "spark-build lock NAME"),
        )
    found: dict[str, LockedRecipe] = {}
    entries = table.get("recipe", [])
    for entry in entries if isinstance(entries, list) else [entries]:
        name = entry.get("name", "?") if isinstance(entry, dict) else "?"
        try:
            whole = isinstance(entry, dict) and _sealed(entry)["digest"] == entry.get("digest")
        except (TypeError, UnicodeEncodeError):  # dates, floats: nothing that we write
            whole = False
        if not whole or name in found:
            raise _damaged(path, f"the entry of {name} isn't what was locked: somebody edited it")
        try:
            found[name] = _of_toml(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f"the entry of {name}: {error!r}") from None
    return Lock(recipes=found)


def _damaged(path: Path, cause: str) -> UsageError:
    return UsageError(
        "lock-damaged",
        f"{path} isn't as it was written",
        cause=cause,
        help="put back the version that was committed, or make it anew",
        run=(f"git checkout -- {path.name}", f"rm {path}", "spark-build lock NAME"),
    )


def _sealed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with the digest of all else in it."""
    rest = {key: value for key, value in entry.items() if key != "digest"}
    return {"name": rest["name"], "digest": sha256_json(rest), **rest} if "name" in rest else {"digest": ""}


def _as_toml(one: LockedRecipe) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": one.name,
        "outputs": list(one.outputs),
        "arch": list(one.arch),
        "overrides": list(one.overrides),
        "asked": dict(one.asked),
        "layer": dict(one.layer),
        "target": dict(one.target),
        "torch": {key: value for key, value in (one.torch or {}).items() if value is not None},
        "env": dict(one.env),
        "tables": dict(one.tables),
        "source": pinned.pin_json(one.source),
        "patch": [{"id": name, "sha256": digest} for name, digest in one.patches.items()],
        "nested": [{"id": name, **pinned.pin_json(pin)} for name, pin in one.nested.items()]
        + [{"id": name, "replaced": digest} for name, digest in one.replaced.items()],
        "requires": [{"output": name, "package": _packages(env)} for name, env in one.envs.items()],
    }
    return {key: value for key, value in table.items() if value not in ([], {}) or key in {"outputs", "asked"}}


def _packages(env: EnvLock) -> list[Json]:
    return [{"name": one.name, "version": one.version, "sha256": list(one.sha256)} for one in env.packages]


def _of_toml(entry: Mapping[str, Any]) -> LockedRecipe:
    nested = entry.get("nested", [])
    return LockedRecipe(
        name=entry["name"],
        asked=dict(entry["asked"]),
        layer=dict(entry.get("layer", {})),
        tables=dict(entry.get("tables", {})),
        target=dict(entry["target"]),
        arch=tuple(entry.get("arch", ())),
        torch={"cuda": None, **entry["torch"]} if "torch" in entry else None,
        source=pinned.pin_of(entry["source"]),
        nested={one["id"]: pinned.pin_of(_without_id(one)) for one in nested if "replaced" not in one},
        replaced={one["id"]: one["replaced"] for one in nested if "replaced" in one},
        patches={one["id"]: one["sha256"] for one in entry.get("patch", ())},
        env=entry.get("env", {}),
        envs={one["output"]: _env(one) for one in entry.get("requires", ())},
        outputs=tuple(entry["outputs"]),
        overrides=tuple(entry.get("overrides", ())),
    )


def _without_id(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "id"}


def _env(table: Mapping[str, Any]) -> EnvLock:
    """Return a build environment; its text names no index: the one that is configured gives what has these hashes."""
    packages = tuple(
        Locked(name=one["name"], version=one["version"], sha256=tuple(one["sha256"]))
        for one in table.get("package", ())
    )
    lines = [
        " ".join([f"{one.name}=={one.version}", *(f"--hash=sha256:{digest}" for digest in one.sha256)])
        for one in packages
    ]
    return EnvLock(output=table["output"], packages=packages, text="".join(f"{line}\n" for line in lines))


def digest_of(text: str) -> str:
    """Return what identifies a table of a recipe: short, since it only has to tell one edit from another."""
    return sha256_bytes(text.encode())[:16]
