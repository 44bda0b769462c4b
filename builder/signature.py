"""Signatures of records, by OpenSSH (``ssh-keygen -Y``): no network, no service, a key that people have already.

They are armoured SSH signatures in the namespace `NAMESPACE` (openssh-portable, PROTOCOL.sshsig); who may sign stands in a
file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS). Anybody can make and check them by hand::

    ssh-keygen -Y sign -f KEY -n spark-build WHEEL.provenance.json
    ssh-keygen -Y verify -f SIGNERS -I WHO -n spark-build -s WHEEL.provenance.json.sig < WHEEL.provenance.json

Nothing here ever prompts: a key with a passphrase has to be in the agent. It needs OpenSSH 8.4 or newer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder import bounded, proc
from builder.errors import CheckRefused, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["NAMESPACE", "checker", "sign", "signer", "sound", "verify"]

#: A signature that was made for something else, a git commit for instance, is none of ours.
NAMESPACE = "spark-build"

_PROGRAM = "ssh-keygen"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: An agent may ask a person, and a security key wants to be touched.
_LIMIT_S = 60.0

#: Bytes of a signature: an RSA key of 16384 bits makes one of 6 KiB. And of what is signed.
_SEAL, _SIGNED = 64 << 10, 64 << 20

#: ssh-keygen reads past blanks and odd line ends. We don't: then every byte of the file counts.
_ARMOUR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n((?:[A-Za-z0-9+/=]+\n)+)-----END SSH SIGNATURE-----\n")


def signer(key: Path | None, *, env: Mapping[str, str]) -> Callable[[bytes], bytes] | None:
    """Return what signs with `key`, once it was seen to work: not only after hours of building. None without a key.

    Raises as `sign` does.
    """
    if key is None:
        return None
    sign(b"", key, env=env)
    return lambda data: sign(data, key, env=env)


def sign(file: Path | bytes, key: Path, *, env: Mapping[str, str] | None = None) -> bytes:
    """Return the signature of a file, or of bytes; `key` is a private key, or a public one whose private one the agent has.

    Raises HostError ``signing-key`` when that key can't be used without asking anybody, ``ssh-keygen-missing``.
    """
    done = _ask("sign", "-f", str(key), "-n", NAMESPACE, stdin=_bytes(file), env=env)
    if not done.ok or not _is_armoured(done.raw):
        raise _unusable(key, done.err)
    return done.raw


def verify(file: Path | bytes, sig: Path | bytes, signers: Path, *, env: Mapping[str, str] | None = None) -> str:
    """Return which of the `signers` signed a file, or bytes: that is what `sig` holds, a file or bytes as well.

    Raises CheckRefused ``signature-missing``, ``signature-damaged`` (it is no signature), ``signature-wrong`` (of other
    bytes, or for something else) or ``signer-unknown`` (it is good, and nobody whom `signers` lets sign made it); UsageError
    ``signers-missing``; HostError ``ssh-keygen-missing``.
    """
    if not signers.is_file():
        raise UsageError(
            "signers-missing",
            f"there is no file of allowed signers {signers}",
            help="one line a signer: a name, then a public key; ssh-keygen(1) says it under ALLOWED SIGNERS",
            run=(
                f'echo "me namespaces=\\"{NAMESPACE}\\" $(cat ~/.ssh/id_ed25519.pub)" >> {shlex.quote(str(signers))}',
            ),
        )
    name, seal = _seal(sig)
    data = _bytes(file)
    with _placed(seal) as place:
        found = _ask("find-principals", "-s", place, "-f", str(signers), env=env)
        told = found.err
        names: list[str] = [*(found.out.splitlines() if found.ok else ()), *_listed(seal, signers)]
        for principal in dict.fromkeys(names):
            words = ("-I", principal, "-n", NAMESPACE, "-s", place, "-f", str(signers))
            done = _ask("verify", *words, stdin=data, env=env)
            if done.ok:
                return principal
            told = done.err + done.out
        maker = _maker(name, place, data, env)
    raise CheckRefused(
        "signer-unknown",
        f"{name} is a good signature by nobody whom {signers.name} lets sign",
        cause=f"{maker}; {_lines(told)}",
        help=f"add the signer's line to {signers}, if you trust the signer",
    )


def sound(file: Path | bytes, sig: Path | bytes, *, env: Mapping[str, str] | None = None) -> str:
    """Return what OpenSSH says of the key that signed a file, or bytes: whose it is, nobody asks.

    Raises CheckRefused ``signature-missing``, ``signature-damaged`` or ``signature-wrong``, as `verify` does.
    """
    name, seal = _seal(sig)
    with _placed(seal) as place:
        return _maker(name, place, _bytes(file), env)


def checker(signers: Path, *, env: Mapping[str, str] | None = None) -> Callable[[Path | bytes, Path | bytes], str]:
    """Return what verifies a file by its signature."""
    return lambda file, sig: verify(file, sig, signers, env=env)


def _bytes(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return bounded.read(file, _SIGNED)
    except (FileNotFoundError, ValueError) as error:
        raise CheckRefused("signature-wrong", f"{file.name} can't be what was signed", cause=str(error)) from error


def _seal(sig: Path | bytes) -> tuple[str, bytes]:
    """Return what a signature is called, and its bytes."""
    if isinstance(sig, bytes):
        name, seal = "its signature", sig
    else:
        name = sig.name
        try:
            seal = bounded.read(sig, _SEAL)
        except FileNotFoundError:
            raise CheckRefused("signature-missing", f"there is no signature {name}") from None
        except ValueError as error:
            summary = f"{name} is no SSH signature, or was changed"
            raise CheckRefused("signature-damaged", summary, cause=str(error)) from error
    if not _is_armoured(seal):
        raise CheckRefused("signature-damaged", f"{name} is no SSH signature, or was changed")
    return name, seal


@contextlib.contextmanager
def _placed(seal: bytes) -> Iterator[str]:
    """Give a file with these very bytes: what was read is what is checked, whoever writes to the original meanwhile."""
    with tempfile.TemporaryDirectory(prefix="spark-build-sig-") as folder:
        place = Path(folder) / "sig"
        place.write_bytes(seal)
        yield str(place)


def _maker(name: str, place: str, data: bytes, env: Mapping[str, str] | None) -> str:
    """Return what OpenSSH says of the key that made a signature; raise CheckRefused when it isn't one of these bytes."""
    alone = _ask("check-novalidate", "-n", NAMESPACE, "-s", place, stdin=data, env=env)
    if alone.ok:
        return _lines(alone.out)
    cause = _lines(alone.err)
    if "namespace does not match" in cause:
        raise CheckRefused("signature-wrong", f"{name} was made for something else than {NAMESPACE}", cause=cause)
    if "incorrect signature" in cause:
        summary = f"{name} is the signature of other bytes: it, or what it stands beside, was changed"
        raise CheckRefused("signature-wrong", summary, cause=cause)
    raise CheckRefused("signature-damaged", f"{name} is no SSH signature, or was changed", cause=cause)


def _unusable(key: Path, told: str) -> HostError:
    private = key.with_suffix("") if key.suffix == ".pub" else key
    if "passphrase" in told:
        cause, help_ = "it has a passphrase, and nobody is asked here", "let the agent hold the key"
    elif "too open" in told:
        return HostError(
            "signing-key",
            f"{key} can't sign",
            cause="others can read it",
            run=(f"chmod 600 {shlex.quote(str(private))}",),
        )
    elif key.suffix == ".pub" and "No private key found" in told:
        cause, help_ = "no agent has its private key, and it doesn't lie beside it", "let the agent hold the key"
    else:
        return HostError(
            "signing-key",
            f"{key} can't sign",
            cause=_lines(told),
            help="signing.key in the configuration names a private SSH key, or a public one that the agent holds",
            run=(f"ssh-keygen {'-y' if private.exists() else '-t ed25519'} -f {shlex.quote(str(private))}",),
        )
    return HostError(
        "signing-key", f"{key} can't sign", cause=cause, help=help_, run=(f"ssh-add {shlex.quote(str(private))}",)
    )


def _listed(seal: bytes, signers: Path) -> Iterator[str]:
    """Yield the names on all lines with a signature's key: ssh-keygen tells those of the first, which may be for git."""
    found = _ARMOUR.fullmatch(seal)
    blob = base64.b64decode(found[1]) if found else b""
    size = int.from_bytes(blob[10:14], "big")  # behind "SSHSIG" and a version
    key = base64.b64encode(blob[14 : 14 + size]).decode()
    for line in signers.read_text(errors="replace").splitlines():
        words = line.split()
        if key and key in words and not line.startswith("#"):
            yield from words[0].strip('"').split(",")


def _is_armoured(seal: bytes) -> bool:
    found = _ARMOUR.fullmatch(seal)
    if not found:
        return False
    text = found[1].replace(b"\n", b"")
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)) == text
    except binascii.Error:
        return False


def _ask(verb: str, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None) -> proc.Finished:
    """Run ssh-keygen where it can ask nobody: neither on the terminal nor by a window."""
    given = env or {}
    clean = {name: given[name] for name in ("SSH_AUTH_SOCK", "HOME", "SSH_SK_PROVIDER") if name in given}
    clean |= {"PATH": given.get("PATH") or _PATH, "LC_ALL": "C"}
    clean |= {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"}
    try:
        return proc.capture([_PROGRAM, "-Y", verb, *words], env=clean, stdin=stdin, timeout_s=_LIMIT_S)
    except HostError as error:
        if error.code != "tool-missing":
            raise
        raise HostError(
            "ssh-keygen-missing",
            "signatures want ssh-keygen, and it isn't here",
            cause=error.cause,
            run=("sudo apt install openssh-client",),
        ) from error


def _lines(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
