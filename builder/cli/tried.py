"""What `audit` finds out by other means than reading: cuobjdump, signatures, and running the wheel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import CheckRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from builder.audit.facts import Contents
    from builder.audit.report import Report
    from builder.audit.rules import Finding
    from builder.cli.app import App
    from builder.pipeline.judged import Said

__all__ = ["ran", "signed"]


def signed(contents: Contents, signers: Path, app: App) -> Iterator[Finding]:
    """Yield whether one of `signers` signed the statement beside the wheel, and whether that is about these bytes.

    Raises UsageError ``signers-missing``, HostError ``ssh-keygen-missing``.
    """
    from builder import signature  # noqa: PLC0415
    from builder.audit.signed import RULES  # noqa: PLC0415
    from builder.wheelhouse import publish, statement  # noqa: PLC0415

    record = publish.sidecar(contents.where)
    data, said = b"", dict[str, Any]()
    try:
        data, said = statement.load(record)
    except FileNotFoundError:
        pass
    except ValueError as error:
        yield RULES["signature-damaged"].finding(found=f"{record.name} can't be read: {error}")
        return
    try:
        principal = signature.verify(data, publish.signature(contents.where), signers, env=app.env)
    except CheckRefused as error:
        yield RULES[error.code].finding(found=error.cause or error.summary)
        return
    about = statement.subject(said)
    if about != contents.sha256:
        found = f"{record.name} is about the bytes {about[:16] or 'of nothing'}"
        yield RULES["signature-other-wheel"].finding(found=found, wanted=contents.sha256[:16])
        return
    yield RULES["signature-good"].finding(found=f"{record.name} was signed by {principal}")


def ran(report: Report, about: Said, args: argparse.Namespace, app: App, beside: Sequence[Path]) -> Iterator[Finding]:
    """Yield what came of installing, importing and running the wheel on this machine."""
    from builder.executor import isolation, workspace  # noqa: PLC0415
    from builder.host import interpreter  # noqa: PLC0415
    from builder.pipeline import trial  # noqa: PLC0415
    from builder.recipe import find  # noqa: PLC0415

    config = app.config()
    scripts = find.scripts(about.loaded.recipe, find.folders(config.recipe_layers)) if about.loaded else {}
    scratch = Path(tempfile.mkdtemp(prefix="spark-build-trial-"))
    try:
        bench = trial.Bench(
            python=str(interpreter.find(args.python or config.build.get("python"), env=app.env, cwd=app.cwd)),
            env={"UV_CACHE_DIR": str(config.sources / "uv"), **app.env},
            index_url=config.index_url,
            scratch=scratch,
            isolation=isolation.probe(app.env, wanted=config.build.get("isolation", "auto")),
            scripts=scripts,
            target=str(report.target),
            offline=False,
            gpu=args.gpu,
        )
        yield from trial.run(report.contents, about.checks, bench, beside=beside)
    finally:
        workspace.remove(scratch)
