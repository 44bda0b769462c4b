"""The team's cache: before something is built, the server upstream is asked for the very same build.

What it has is a claim until it was looked at here: the bytes by their sha256, the inputs inside by our own fingerprint, the
record by what it says of both, its signature where signers are configured, and then the audit and the trial that a build of
our own has to pass. All outputs of a plan are taken, or none. Whatever is wrong there costs one warning, and it is built.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from builder.errors import CheckRefused, Interrupted, SparkError
from builder.events import Fetching, Note, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder import stages
    from builder.pipeline.attempt import Attempt
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.intake import Examined
    from builder.pipeline.world import World
    from builder.upstream.offers import Offer
    from builder.upstream.server import Server
    from builder.wheelhouse import Wheelhouse
    from builder.wheelhouse.foreign import Foreign

__all__ = ["holds", "is_asked", "require_welcome", "take"]

#: Seconds for the question, and how often it is asked: it stands before every build.
_ASK_S, _ASK_TRIES = 5.0, 3
#: How often a transfer that brings nothing is tried, and for how many seconds: a build is the other way.
_TRIES, _WITHIN_S = 4, 30.0


def is_asked(one: Evaluation, world: World) -> bool:
    """Whether somebody is asked before a build: ``--offline`` and ``--force`` say no."""
    return world.config.upstream is not None and not one.request.offline and not one.request.force


def take(attempt: Attempt) -> tuple[stages.Stored, ...]:
    """Return the wheels of a plan as stored, taken from upstream; none where it has none, or has none that hold.

    Raises Interrupted, what came so far is kept then; and HostError where the index can't be written.
    """
    from builder import index  # noqa: PLC0415
    from builder.pipeline.attempt import phase  # noqa: PLC0415

    with phase(attempt, "fetch") as text:
        stored = _tried(attempt, text)
    if not stored:
        return ()
    index.refresh(attempt.world.house)
    for wheel in stored:
        attempt.sink.emit(Stored(output=wheel.output, path=str(wheel.path), sha256=wheel.sha256, size=wheel.size))
    attempt.taken.extend(text)
    attempt.sink.emit(Note(level="info", text=f"{_name(attempt)}: {text[0]}, not built"))
    return stored


def _tried(attempt: Attempt, text: list[str]) -> tuple[stages.Stored, ...]:
    """Do the same without the index; `text` is told what came of it, and the screen why nothing did."""
    from builder.upstream import server as servers  # noqa: PLC0415  # few have one

    config, folder = attempt.world.config, attempt.space.root / "upstream"
    try:
        server = servers.of(config.upstream or "", env=attempt.world.env, token_file=config.upstream_token_file)
        stored = _taken(attempt, server, folder)
        text.append(f"taken from {server.url}" if stored else f"{server.url} has no such build")
    except Interrupted:
        raise
    except Exception as error:
        if not isinstance(error, SparkError | OSError) and attempt.world.env.get("SPARK_BUILD_DEBUG"):
            raise  # a wheel that was made to break what looks at it mustn't end a build either
        told = f"{_name(attempt)} isn't taken from upstream, and is built here: {_told(error)}"
        attempt.sink.emit(Note(level="warning", text=told))
        text.append("nothing is taken from upstream")
        stored = ()
    shutil.rmtree(folder, ignore_errors=True)
    return stored


def _name(attempt: Attempt) -> str:
    return f"{attempt.one.plan.recipe} {attempt.one.plan.inputs.fingerprint[:10]}"


def _told(error: Exception) -> str:
    if not isinstance(error, SparkError):
        return f"{type(error).__name__}: {error}"
    lines = error.cause.splitlines()
    more = f"; and {len(lines) - 1} more" if len(lines) > 1 else ""
    return ": ".join([error.summary, *lines[:1]]) + more


def _taken(attempt: Attempt, server: Server, folder: Path) -> tuple[stages.Stored, ...]:
    from builder.pipeline import finish, intake, proof  # noqa: PLC0415
    from builder.upstream import fetch  # noqa: PLC0415

    one, world = attempt.one, attempt.world
    offers = _offers(one, server)
    if not offers:
        return ()

    def tell(told: fetch.Told) -> None:
        attempt.sink.emit(Fetching(name=told.name, done=told.done, total=told.total))

    require_welcome(world.house, offers)
    patient = server.but(tries=_TRIES, within_s=_WITHIN_S)
    paths = [fetch.wheel(patient, offer, folder, tell) for offer in offers]
    found = [_judged(one, world, offer, path) for offer, path in zip(offers, paths, strict=True)]
    _require_one_label(found)
    proof.prove(attempt, [each.wheel for each in found], what=f"of {server.url} would not run as it should")
    examined: list[Examined] = [
        intake.Examined(
            one=each,
            report=attempt.reports[each.wheel.sha256],
            stamp=proof.stamp_of(one, world, each.wheel.output),
        )
        for each in found
    ]
    stored = tuple(taken.wheel for taken in intake.file(world.house, examined, sign=finish.signer(world)))
    proof.keep(attempt, stored)
    _remember(world, stored, server.url)
    return stored


def _offers(one: Evaluation, server: Server) -> tuple[Offer, ...]:
    """Return what the server has of every output of a plan, in the plan's order; none where one is lacking."""
    from builder.upstream import offers  # noqa: PLC0415

    fingerprint = one.plan.inputs.fingerprint
    found = offers.build(server.but(timeout_s=_ASK_S, tries=_ASK_TRIES, within_s=_ASK_S), fingerprint)
    named = {offer.output: offer for offer in found}
    if len(named) < len(found):
        text = f"{server.url} offers several wheels of one output"
        raise CheckRefused("upstream-unfit", text, cause=", ".join(offer.filename for offer in found))
    names = [output.name for output in one.outputs]
    return tuple(named[name] for name in names) if named.keys() >= set(names) else ()


def require_welcome(house: Wheelhouse, offers: Sequence[Offer]) -> None:
    """Raise CheckRefused ``wheel-withheld`` where a wheel, or its project, was withheld here: it has no other door."""
    from builder.index import listing  # noqa: PLC0415
    from builder.wheel import read  # noqa: PLC0415
    from builder.wheelhouse import states  # noqa: PLC0415

    for offer in offers:
        project = read.normalised(offer.filename.partition("-")[0])
        told, wheel = states.status_of(house, project), listing.by_sha256(house, offer.sha256)
        kept = states.withheld(house, offer.sha256)  # also of one that was removed
        state = kept.state if kept else wheel.state if wheel else "unpublished"
        run = f"spark-build wheels show {offer.filename}"
        if told is not None and told.state == "quarantined":
            state, run = told.state, f"spark-build wheels list --all {project}"
        if state not in {"published", "unpublished"}:
            raise CheckRefused(
                "wheel-withheld",
                f"{offer.filename} is {state} here",
                help="it doesn't come back from elsewhere; take that back first, if it was wrong",
                run=(run,),
            )


def _judged(one: Evaluation, world: World, offer: Offer, path: Path) -> Foreign:
    """Return a fetched wheel that is the build which was asked for, by its own word and its record's, and vouched for.

    Raises CheckRefused as `foreign.judge` and `foreign.vouch` do, ``inputs-other``, ``output-other`` and
    ``record-contradicts``.
    """
    from builder.wheelhouse import foreign, statement  # noqa: PLC0415

    fingerprint = one.plan.inputs.fingerprint
    found = foreign.judge(path)
    if found.fingerprint != fingerprint:
        raise CheckRefused(
            "inputs-other",
            f"{path.name} isn't the build that was asked for",
            cause=f"the inputs in it give {found.fingerprint[:10] or 'nothing'}, wanted {fingerprint[:10]}",
        )
    if found.wheel.output != offer.output:
        cause = f"it is {found.wheel.output}, wanted {offer.output}"
        raise CheckRefused("output-other", f"{path.name} isn't the output that was asked for", cause=cause)
    said = statement.facts(statement.parse(found.record or b"{}"))
    if said.get("fingerprint") != fingerprint or "added" in said:
        raise CheckRefused(
            "record-contradicts",
            f"the record of {path.name} doesn't say that it was built from these inputs",
            cause="it says that the file was taken in"
            if "added" in said
            else f"it says {said.get('fingerprint', 'none')}",
        )
    foreign.vouch(found, holds(world), required=world.config.signers is not None)
    return found


def holds(world: World) -> Callable[[bytes, bytes], str]:
    """Return what checks a signature: by the configured signers, else whether it is one of these bytes at all."""
    from builder import signature  # noqa: PLC0415

    if signers := world.config.signers:
        return signature.checker(signers, env=world.env)
    return lambda record, seal: signature.sound(record, seal, env=world.env)


def _require_one_label(found: Sequence[Foreign]) -> None:
    """Raise where wheels of one build have labels of several: they compare their versions, local parts included."""
    labels = {".".join(each.wheel.version.partition("+")[2].split(".")[:2]) for each in found}
    if len(labels) > 1:
        raise CheckRefused(
            "labels-differ", "the wheels of one build have several labels", cause=", ".join(sorted(labels))
        )


def _remember(world: World, stored: Sequence[stages.Stored], url: str) -> None:
    """Keep where the wheels are from; their label is the one that this build has here, too."""
    from builder.wheel import label  # noqa: PLC0415
    from builder.wheelhouse import foreign, publish  # noqa: PLC0415

    house = world.house
    for wheel in stored:
        if (kept := foreign.kept(house, wheel.sha256)) is not None:
            house.remember(publish.FOREIGN, wheel.sha256, {**kept, "from": url})
    if (moment := label.moment(stored[0].version)) is not None:
        house.planned_as(stored[0].fingerprint, moment)
