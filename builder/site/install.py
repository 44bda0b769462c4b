"""What to paste to install: for uv and pip, each safe against a stranger's package of the same name elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.index import clients as lines
from builder.site.html import h, join
from builder.site.parts import code, folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.site.frame import Place
    from builder.site.html import Html
    from builder.site.model import Where
    from builder.stages import Stored

__all__ = ["LOCAL", "address", "clients", "wheel"]

#: Stands for the address where nobody knows it: the script of the pages puts it in.
_UNKNOWN = "INDEX-ADDRESS"
#: Up to so many packages their lines are on the page.
_MANY = 50
#: The channel that everything enters.
LOCAL = "local"


def address(place: Place, path: str, at: Where) -> Html:
    """Return the absolute address of something below this site. Where that isn't known the script puts it in."""
    if at.url:
        return h("span", f"{at.url}/{path}", class_="url")
    return h("span", f"{_UNKNOWN}/{path}", class_="url", data_url=place.file(path))


def index(place: Place, channel: str, at: Where) -> Html:
    """Return the address of a channel's index."""
    return address(place, "simple/" if channel == at.root else f"{channel}/simple/", at)


def chosen(channels: Sequence[str]) -> str:
    """Return the channel to install from: one that somebody promoted to, before that where everything enters."""
    return next((name for name in channels if name != LOCAL), LOCAL)


def wheel(place: Place, one: Stored, channels: Sequence[str], at: Where) -> Html:
    """Return how to install exactly this wheel."""
    where, pin = chosen(channels), f"{one.project}=={one.version}"
    file = address(place, f"files/{one.sha256}/{one.filename}", at)
    return join(
        code(["uv pip install --index ", index(place, where, at), " '", pin, "'"], "uv command"),
        folded(
            "pip, this very file",
            h("p", "By its address and digest: no index is asked. What it needs in turn pip would take from anywhere."),
            code(["pip install --no-deps '", one.project, " @ ", file, "#sha256=", one.sha256, "'"], "pip command"),
            group="install",
        ),
        folded(
            "uv project (pyproject.toml)",
            h("p", f"This ties {one.project} to this index, and not what it needs: ", _all(place, where)),
            project(place, [one.project], (), where, at),
            group="install",
        ),
        folded(
            "Pinned requirement",
            h("p", "For a requirements file; installers refuse other bytes."),
            code([pin, " --hash=sha256:", one.sha256], "requirement"),
            group="install",
        ),
        _hint(at),
    )


def project(place: Place, names: Sequence[str], withheld: Sequence[str], channel: str, at: Where) -> Html:
    """Return what goes into a project's ``pyproject.toml``, as ``spark-build index client-config`` writes it."""
    known = lines.Index.at(f"https://{_UNKNOWN}", LOCAL if channel == at.root else channel)
    chosen = [lines.Chosen(project=name, version="", files=()) for name in names]
    first, *parts = lines.uv_project(known, [*names, *withheld], chosen).split(known.url)
    text = [first, *(each for part in parts for each in (index(place, channel, at), part))]
    return code(text, "lines for pyproject.toml")


def clients(place: Place, channel: str, names: Sequence[str], at: Where, withheld: Sequence[str] | None = None) -> Html:
    """Return how uv and pip are pointed at a channel.

    Of `names` wheels are offered, and of `withheld` none; without the latter, `names` aren't all.
    """
    command = f"spark-build index client-config --channel {channel} --url "
    uv = h("p", "A name that isn't tied may come from elsewhere: ", _all(place, channel))
    if withheld is not None:
        few = 0 < len(names) + len(withheld) <= _MANY
        uv = project(place, names, withheld, channel, at) if few else h("p", "The command below writes the lines.")
    return join(
        code(["uv pip install --index ", index(place, channel, at), f" {[*names, 'PACKAGE'][0]}"], "uv command"),
        folded("uv project (pyproject.toml)", uv, group="clients"),
        folded(
            "pip (pip.conf)",
            h(
                "p",
                "One index and no other. Don't add it by ",
                h("code", "extra-index-url"),
                ": pip takes the highest version from anywhere, and anybody may put one on a public index.",
            ),
            code(["[global]\nindex-url = ", index(place, channel, at)], "lines for pip.conf"),
            group="clients",
        ),
        folded(
            "Write it all",
            h("p", "Where the wheelhouse is, with hashes and lock of what the channel lists:"),
            code([command, index(place, channel, at)], "command"),
            group="clients",
        ),
        _hint(at),
    )


def _all(place: Place, channel: str) -> Html:
    return join("the lines for all packages are on the page of channel ", place.channel(channel), ".")


def _hint(at: Where) -> Html | None:
    if at.url:
        return None
    return h(
        "noscript", h("p", h("code", _UNKNOWN), " stands for the address at which you see these pages.", class_="about")
    )
