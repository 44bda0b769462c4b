"""The stamp under which findings are kept grows whenever what judges say may have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import builder
from builder.audit import stamp
from builder.recipe.model import Check

#: What of the package decides about no finding: what compares, what asks others, what is kept where.
OTHERS = {
    "__init__",
    "causes",
    "change",
    "compare",
    "crosscheck",
    "dpkg",
    "installed",
    "signed",
    "signs",
    "stamp",
    "stretch",
    "texts",
}

#: Changed what judges say? Raise `stamp.RULES`, and put both here. A change that changes no finding: the digest alone.
KNOWN = (2, "59b0097bf4299bd6")


def _digest() -> str:
    """Return a digest of the judges' text: lines that are blank or comments don't count."""
    root = Path(builder.__file__).parent
    judges = [file for file in sorted((root / "audit").glob("*.py")) if file.stem not in OTHERS]
    lines = [
        line.strip()
        for file in (*judges, root / "pipeline" / "trial.py", root / "wheel" / "problems.py")
        for line in file.read_text().splitlines()
    ]
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()[:16]


def test_the_number_grows_with_the_rules() -> None:
    assert (stamp.RULES, _digest()) == KNOWN


def test_checks_target_and_scripts_count() -> None:
    plain = stamp.of([], target="12.1")
    checked = stamp.of([Check(kind="size", max="1MiB")], target="12.1")
    script = Check(kind="script", script="a.py")
    stamps = [plain, checked, stamp.of([], target="12.0")]
    stamps += [stamp.of([script], target="12.1", scripts={"a.py": text}) for text in ("1", "2")]
    assert len(set(stamps)) == len(stamps)
    assert stamp.of([], target="12.1") == plain
