from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.errors import BuildFailed
from builder.wheel import label

OURS = "sb20261124101112.g0123456789"


def test_label_holds_utc_time_and_hash() -> None:
    assert label.make(0, "0123456789abcdef") == "sb19700101000000.g0123456789"
    assert label.make(0, "0123456789abcdef", revision=1) == "sb19700101000000.g0123456789"
    assert label.make(0, "0123456789abcdef", revision=2) == "sb19700101000000.g0123456789r2"


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("1.0", f"1.0+{OURS}"),
        ("1.0+cu130", f"1.0+{OURS}.cu130"),
        ("3.5.0+git50b2f739", f"3.5.0+{OURS}.git50b2f739"),
        ("1.0+cu_130-X", f"1.0+{OURS}.cu.130.x"),
        ("1!2.0.dev5+g1.d2026", f"1!2.0.dev5+{OURS}.g1.d2026"),
        # what a file name couldn't hold otherwise
        ("1.0-1", f"1.0.post1+{OURS}"),
        ("1.0-RC1", f"1.0rc1+{OURS}"),
        # carried by environment: in front, elsewhere, with and without a revision
        (f"1.0+{OURS}", f"1.0+{OURS}"),
        (f"1.0+{OURS}.cu130", f"1.0+{OURS}.cu130"),
        (f"1.0+cu130.{OURS}", f"1.0+{OURS}.cu130"),
        (f"1.0+{OURS}r2.cu130", f"1.0+{OURS}.cu130"),
        # a part that only looks like a piece of ours stays
        ("1.0+g0123456789", f"1.0+{OURS}.g0123456789"),
    ],
)
def test_label_stands_in_front_of_upstreams_local_part(version: str, wanted: str) -> None:
    made = label.labelled(version, OURS)
    assert made == wanted
    assert str(Version(made)) == made
    assert label.labelled(made, OURS) == made


def test_revision_replaces_the_label_that_the_environment_gave() -> None:
    assert label.labelled(f"1.0+{OURS}.cu130", f"{OURS}r2") == f"1.0+{OURS}r2.cu130"


@pytest.mark.parametrize("local", ["", "+git12", "+sm121", "+130", "+cu130.zz"])
def test_later_label_is_a_higher_version_whatever_upstream_appends(local: str) -> None:
    old = label.labelled("1.0+git9c", label.make(1_000_000, "f" * 64))
    new = label.labelled(f"1.0{local}", label.make(1_000_001, "0" * 64))
    again = label.labelled(f"1.0{local}", label.make(1_000_001, "0" * 64, revision=2))
    assert Version(old) < Version(new)
    assert Version("1.0") < Version(old) < Version("1.0.post1")
    assert Version(new) < Version(again)
    assert Version(new) in SpecifierSet("==1.0")


def test_version_that_no_installer_takes_is_refused() -> None:
    with pytest.raises(BuildFailed) as caught:
        label.labelled("main", OURS)
    assert caught.value.code == "version-invalid"


@pytest.mark.parametrize(
    ("version", "plain"),
    [
        ("1.0+sb20231114221320.g549af25c60", "1.0"),
        ("1.0+sb20231114221320.g549af25c60r2", "1.0"),
        ("1.0rc1+sb20231114221320.g549af25c60r12.cu130.sm121", "1.0rc1+cu130.sm121"),
        ("1.0", None),
        ("1.0+cu130", None),
        ("1.0+cu130.sb20231114221320.g549af25c60", None),
        ("1.0+sb20231114221320.g549af25c60d", None),
    ],
)
def test_a_version_without_its_label_keeps_the_rest(version: str, plain: str | None) -> None:
    assert label.unlabelled(version) == plain
