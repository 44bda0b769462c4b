"""A key and a certificate of one's own, for servers of tests."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["certificate"]

_WORDS = shlex.split("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2")


def certificate(key: Path, cert: Path, *, name: str = "IP:127.0.0.1", subject: str = "x") -> None:
    """Leave a key in `key`, and in `cert` a certificate for `name`, written as a subjectAltName is; they may be one file."""
    made = cert.with_name(f"{cert.name}.new")
    about = ["-subj", f"/CN={subject}", "-addext", f"subjectAltName={name}"]
    subprocess.run([*_WORDS, *about, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    cert.write_text((key.read_text() if key == cert else "") + made.read_text())
    made.unlink()
