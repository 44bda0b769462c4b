"""Pins as JSON: what is remembered comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder import pinned
from tests.base_kit import NESTED, PIN

if TYPE_CHECKING:
    from builder.stages import Nested, Pin


@pytest.mark.parametrize("pin", [PIN, replace(PIN, submodules=(), pulls=(), describe="v1-2-gabc", size=3)])
def test_a_pin_comes_back(pin: Pin) -> None:
    assert pinned.pin_of(json.loads(json.dumps(pinned.pin_json(pin)))) == pin


def test_when_a_remote_was_asked_is_no_fact_of_the_source() -> None:
    assert pinned.pin_of(pinned.pin_json(replace(PIN, asked_at=1.0, stale=True))) == PIN


@pytest.mark.parametrize("nested", NESTED, ids=lambda one: one.id)
def test_a_nested_source_comes_back(nested: Nested) -> None:
    back = pinned.nested_of(json.loads(json.dumps(pinned.nested_json(nested))))
    assert back == nested
    assert back.identity() == nested.identity()


def test_what_is_none_is_refused() -> None:
    with pytest.raises(TypeError):
        pinned.pin_of({"kind": "git", "colour": "red"})


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "--upload-pack=touch x"},
        {"tree": "sha256:../../.."},
        {"filename": "../x"},
        {"filename": ".."},
        {"filename": ""},
        {"time": "1"},
        {"submodules": [{"path": "../x", "url": "https://example.org/x", "commit": "c" * 40}]},
        {"submodules": [{"path": "/x", "url": "https://example.org/x", "commit": "c" * 40}]},
        {"submodules": [{"path": "x", "url": "https://example.org/x", "commit": "--all"}]},
    ],
)
def test_what_would_lead_out_of_a_folder_or_be_an_option_is_no_pin(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no pin"):
        pinned.pin_of({**pinned.pin_json(PIN), **change})
