"""Signatures by ssh-keygen: made and checked without a network, nobody is asked, each fault has a name of its own."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import signature
from builder.errors import CheckRefused, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.errors import SparkError

ROOT = Path(__file__).resolve().parent.parent
PHRASE = "long and winding"
DATA = b'{"subject": []}\n'

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def make_key(folder: Path, name: str, *, passphrase: str = "") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)], check=True
    )
    return folder / name


def allow(key: Path, name: str = "alice@example.invalid", *, options: str = "") -> Path:
    """Write a file of allowed signers that lets `key` sign under `name`."""
    kind, public, *_rest = key.with_name(f"{key.name}.pub").read_text().split()
    file = key.parent / "signers"
    with file.open("a") as stream:
        stream.write(f"{name} {options} {kind} {public}\n")
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path, "alice")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    (tmp_path / "record.sig").write_bytes(signature.sign(DATA, key))
    return tmp_path / "record.sig"


def refusal(data: bytes, sig: Path, signers: Path) -> SparkError:
    with pytest.raises(CheckRefused) as caught:
        signature.verify(data, sig, signers)
    return caught.value


def test_who_signed_is_told(key: Path, signed: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_bytes(DATA)
    signers = allow(key)
    assert signature.verify(DATA, signed, signers) == "alice@example.invalid"
    assert signature.verify(record, signed, signers) == "alice@example.invalid"
    assert signature.sign(record, key) == signed.read_bytes()
    assert signature.checker(signers)(record, signed) == "alice@example.invalid"


def test_people_make_and_check_the_same_signatures_by_hand(key: Path, signed: Path, tmp_path: Path) -> None:
    record, signers = tmp_path / "record.json", allow(key)
    record.write_bytes(DATA)
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "spark-build", str(record)], check=True, capture_output=True
    )
    assert signature.verify(record, tmp_path / "record.json.sig", signers) == "alice@example.invalid"
    words = ["-I", "alice@example.invalid", "-n", "spark-build", "-s", str(signed), "-f", str(signers)]
    subprocess.run(["ssh-keygen", "-Y", "verify", *words], input=DATA, check=True, capture_output=True)


def test_a_key_with_several_names_signs_as_the_first_that_may(key: Path, signed: Path) -> None:
    allow(key, "*@old.invalid", options='valid-before="20200101"')
    allow(key, "git@example.invalid", options='namespaces="git"')
    allow(key, "carol@example.invalid", options='namespaces="spark-build"')
    assert signature.verify(DATA, signed, key.parent / "signers") == "carol@example.invalid"


@pytest.mark.root
def test_both_work_where_there_is_no_network(key: Path, tmp_path: Path) -> None:
    signers = allow(key)
    code = (
        "import pathlib, socket, sys\n"
        "from builder import signature\n"
        "key, signers, sig = map(pathlib.Path, sys.argv[1:])\n"
        "try: socket.create_connection(('192.0.2.1', 80), 1)\n"
        "except OSError as error: assert error.errno == 101, error\n"  # ENETUNREACH
        "sig.write_bytes(signature.sign(b'x', key))\n"
        "print(signature.verify(b'x', sig, signers))\n"
    )
    words = ["unshare", "-n", sys.executable, "-c", code, str(key), str(signers), str(tmp_path / "x.sig")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alice@example.invalid\n"), done.stderr


# --- what is refused


def test_a_flipped_byte_of_the_data_is_caught_wherever_it_is(key: Path, signed: Path) -> None:
    signers = allow(key)
    for place in range(len(DATA)):
        changed = bytearray(DATA)
        changed[place] ^= 1
        error = refusal(bytes(changed), signed, signers)
        assert (error.code, "other bytes" in error.summary) == ("signature-wrong", True)


def test_a_flipped_byte_of_the_signature_is_caught_wherever_it_is(key: Path, signed: Path, tmp_path: Path) -> None:
    """Also where ssh-keygen reads past it: odd line ends, say."""
    signers, good, bad = allow(key), signed.read_bytes(), tmp_path / "bad.sig"
    codes = set()
    ends = {place for place, byte in enumerate(good) if byte == ord("\n")}
    for place in ends | set(range(0, len(good), 7)):
        changed = bytearray(good)
        changed[place] ^= 1
        bad.write_bytes(changed)
        codes.add(refusal(DATA, bad, signers).code)
    assert codes == {"signature-damaged", "signature-wrong"}
    for more in (good + b"\n", b" " + good, good.replace(b"\n", b"\r\n"), good + good, b""):
        bad.write_bytes(more)
        assert refusal(DATA, bad, signers).code == "signature-damaged"


def test_a_good_signature_by_somebody_else_is_told_from_a_bad_one(key: Path, signed: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path, "mallory")
    signers = allow(key)
    signed.write_bytes(signature.sign(DATA, other))
    assert refusal(DATA, signed, signers).code == "signer-unknown"
    assert refusal(DATA + b"x", signed, signers).code == "signature-wrong"


@pytest.mark.parametrize("options", ['namespaces="git"', 'valid-before="20200101"', 'valid-after="20990101"'])
def test_a_signer_who_may_not_sign_this_or_not_now_is_unknown(key: Path, signed: Path, options: str) -> None:
    error = refusal(DATA, signed, allow(key, options=options))
    assert error.code == "signer-unknown"
    assert error.help


def test_a_signature_for_something_else_is_none(key: Path, tmp_path: Path) -> None:
    words = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "git"]
    made = subprocess.run(words, input=DATA, check=True, capture_output=True).stdout
    (tmp_path / "git.sig").write_bytes(made)
    error = refusal(DATA, tmp_path / "git.sig", allow(key))
    assert (error.code, "something else" in error.summary) == ("signature-wrong", True)


def test_what_isn_t_there_is_said(key: Path, signed: Path, tmp_path: Path) -> None:
    assert refusal(DATA, tmp_path / "no.sig", allow(key)).code == "signature-missing"
    with pytest.raises(UsageError) as caught:
        signature.verify(DATA, signed, tmp_path / "nobody")
    assert caught.value.code == "signers-missing"
    assert str(tmp_path / "nobody") in caught.value.run[0]


@pytest.mark.parametrize("text", ["", "# nobody\n", "alice@example.invalid\n", "\0\n"])
def test_a_file_of_signers_without_any_lets_nobody_sign(signed: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "odd").write_text(text)
    assert refusal(DATA, signed, tmp_path / "odd").code == "signer-unknown"


# --- keys


def unusable(key: Path, env: dict[str, str] | None = None) -> SparkError:
    with pytest.raises(HostError) as caught:
        signature.signer(key, env=env or {})
    assert caught.value.code == "signing-key"
    assert caught.value.run
    return caught.value


def test_a_key_that_can_t_sign_says_why_and_what_to_type(key: Path, tmp_path: Path) -> None:
    assert unusable(tmp_path / "none").run == (f"ssh-keygen -t ed25519 -f {tmp_path / 'none'}",)
    (tmp_path / "odd").write_text("no key\n")
    unusable(tmp_path / "odd")
    locked = make_key(tmp_path, "locked", passphrase=PHRASE)
    assert "passphrase" in unusable(locked).cause
    assert unusable(locked).run == (f"ssh-add {locked}",)
    lone = tmp_path / "lone.pub"
    lone.write_text(key.with_name("alice.pub").read_text())
    assert "agent" in unusable(lone).cause
    key.chmod(0o644)
    if os.geteuid() == key.stat().st_uid:
        assert unusable(key).run == (f"chmod 600 {key}",)


def test_a_passphrase_is_asked_for_on_no_terminal(tmp_path: Path) -> None:
    """With a terminal at hand, on which ssh-keygen would ask and wait."""
    locked = make_key(tmp_path, "locked", passphrase=PHRASE)
    code = (
        "import pathlib, sys\n"
        "from builder import errors, signature\n"
        "try: signature.signer(pathlib.Path(sys.argv[1]), env={'DISPLAY': ':0'})\n"
        "except errors.HostError as error: print('told', error.code)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", code, str(locked)])  # noqa: S606  # as it is
    signal.alarm(60)  # a question would wait for ever
    said = b""
    try:
        while data := os.read(terminal, 4096):
            said += data
    except OSError:  # the terminal is gone
        pass
    finally:
        signal.alarm(0)
        os.close(terminal)
        os.waitpid(pid, 0)
    assert said.decode().split() == ["told", "signing-key"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield {"SSH_AUTH_SOCK": str(socket), "PATH": os.environ["PATH"]}
    process.terminate()
    process.communicate()


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")
def test_a_key_that_the_agent_holds_signs_by_its_public_half(key: Path, agent: dict[str, str], tmp_path: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], env=agent, check=True, capture_output=True)
    signers, public = allow(key), key.with_name("alice.pub")
    key.unlink()
    sign = signature.signer(public, env=agent)
    assert sign
    (tmp_path / "record.sig").write_bytes(sign(DATA))
    assert signature.verify(DATA, tmp_path / "record.sig", signers) == "alice@example.invalid"


def test_without_ssh_keygen_the_package_is_named(key: Path, signed: Path, tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path)}
    for ask in (
        lambda: signature.sign(DATA, key, env=nowhere),
        lambda: signature.verify(DATA, signed, allow(key), env=nowhere),
    ):
        with pytest.raises(HostError) as caught:
            ask()
        assert caught.value.code == "ssh-keygen-missing"
        assert caught.value.run == ("sudo apt install openssh-client",)
