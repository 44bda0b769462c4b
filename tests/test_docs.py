"""The generated pages are those that the code makes now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder.cli.reference import pages

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("name", ["cli.md", "failures.md", "findings.md", "recipe-reference.md", "recipe.schema.json"])
def test_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], (
        f"docs/{name} is out of date; run: python -m builder.cli.reference"
    )


def test_links_between_pages_lead_somewhere() -> None:
    for file in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        prose = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (file.parent / target).exists(), f"{file.name} -> {target}"
