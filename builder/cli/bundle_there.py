"""What ``spark-build bundle verify``, ``import`` and ``install`` do: on the side that has no network."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.cli.session import opened
from builder.errors import CheckRefused, HostError, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.bundle.verify import Verified
    from builder.cli.app import App

__all__ = ["install", "take", "verify"]


def verify(args: argparse.Namespace, app: App) -> int:
    """Tell that a bundle, or its parts, are as they were made."""
    from builder.bundle import parts  # noqa: PLC0415
    from builder.bundle import verify as verifying  # noqa: PLC0415

    here = app.cwd / args.bundle
    if parts.are_parts(here):
        names = parts.verify(here, signers=_signers(args, app), env=app.env)
        if args.json:
            app.print_json({"verified": {"path": str(here), "parts": list(names)}})
        else:
            app.print(f"{len(names)} parts are as they were made")
        return 0
    found = verifying.verify(here, signers=_signers(args, app), env=app.env)
    if args.json:
        told = {
            "path": str(here),
            "files": len(found.manifest.files),
            "left_out": list(found.lacks),
            "signer": found.signer,
        }
        app.print_json({"verified": {**told, "target": dict(found.manifest.target)}})
        return 0
    app.print(
        f"{len(found.manifest.files) - len(found.lacks)} files are as they were made; {found.signer or 'nobody signed it'}"
    )
    if found.lacks:
        app.stderr.write(f"a delta: {len(found.lacks)} more files are those of the bundle that it was made against\n")
    return 0


def take(args: argparse.Namespace, app: App) -> int:
    """File our wheels, keep the others; print the paths of ours."""
    from builder import signature  # noqa: PLC0415
    from builder.bundle import bring  # noqa: PLC0415
    from builder.cli.wheels import refresh_index  # noqa: PLC0415

    found = _checked(args, app)
    with opened(args, app) as world:
        sign = signature.signer(world.config.signing_key, env=app.env)
        try:
            brought = bring.bring(
                found,
                world.house,
                world.sources(offline=True, recipe="NAME"),
                config=world.config,
                env=app.env,
                sign=sign,
                channels=args.channel,
            )
        finally:
            refresh_index(world.house, app)
    if args.json:
        from builder.ui import wheels as shown  # noqa: PLC0415

        rows = [{**shown.as_json(one.wheel), "cached": one.there} for one in brought.wheels]
        app.print_json(
            {"imported": {"wheels": rows, "cached": brought.cached, "new": brought.new, "sources": brought.sources}}
        )
        return 0
    for one in brought.wheels:
        app.print(str(one.wheel.path))
    told = f"{len(brought.wheels)} wheels of ours filed; {brought.new} of {brought.cached} other files were new here"
    app.stderr.write(f"{told}\n")
    if brought.sources and brought.wheels:
        index = shlex.quote((found.path / "simple").as_uri())
        ref = brought.wheels[0].wheel.fingerprint[:12]
        app.stderr.write(f"built again: SPARK_BUILD_INDEX_URL={index} spark-build rebuild {ref} --check --offline\n")
    return 0


def install(args: argparse.Namespace, app: App) -> int:
    """Install and print the interpreter that has it all."""
    from builder.bundle import bring, installer  # noqa: PLC0415
    from builder.bundle import verify as verifying  # noqa: PLC0415

    if bool(args.venv) == bool(args.python):
        raise UsageError(
            "install-where",
            "a bundle is installed into one place",
            help="name a folder for a new environment, or an interpreter by --python",
            run=(shlex.join(["spark-build", "bundle", "install", args.bundle, "venv"]),),
        )
    found = _checked(args, app)
    if found.lacks:
        config = app.config()
        bring.fill(found, config.sources, config.wheelhouse / "wheels")
        found = verifying.verify(found.path, signers=_signers(args, app), env=app.env)
    if found.lacks:
        raise CheckRefused(
            "bundle-incomplete",
            f"{len(found.lacks)} files of this delta are neither in it nor here",
            cause="\n".join(found.lacks[:20]),
            help="--base names the bundle that it was made against; or import that one first",
            run=(shlex.join(["spark-build", "bundle", "install", args.bundle, "--base", "BUNDLE"]),),
        )
    venv = app.cwd / args.venv if args.venv else None
    try:
        python = installer.install(found.path, found.document, venv=venv, python=args.python, uv=_uv())
    except installer.Refused as error:
        if error.code == CheckRefused.exit_code:
            help_ = "something else writes to it: copy it to a disk of your own, and install it from there"
            raise CheckRefused(
                "bundle-wrong", str(error), help=help_, run=(shlex.join(["cp", "-r", args.bundle, "DIR"]),)
            ) from error
        raise HostError("not-installed", str(error), run=("spark-build doctor",)) from error
    if args.json:
        app.print_json({"installed": {"python": python, "wheels": [dict(one) for one in found.manifest.wheels]}})
    else:
        app.print(python)
        app.stderr.write(f"{len(found.manifest.wheels)} wheels installed\n")
    return 0


def _uv() -> str:
    import uv  # noqa: PLC0415

    return uv.find_uv_bin()


def _signers(args: argparse.Namespace, app: App) -> Path | None:
    return app.cwd / args.signers if args.signers else app.config().signers


def _checked(args: argparse.Namespace, app: App) -> Verified:
    """Return the bundle that the arguments name, verified; parts are put together, a delta is completed from its base."""
    from builder.bundle import parts  # noqa: PLC0415
    from builder.bundle import verify as verifying  # noqa: PLC0415

    here, signers = app.cwd / args.bundle, _signers(args, app)
    if parts.are_parts(here):
        if not args.unpack:
            raise UsageError(
                "bundle-in-parts",
                f"{args.bundle} holds the parts of a bundle",
                help="--unpack names a folder to put it together in",
                run=(shlex.join(["spark-build", "bundle", args.verb, args.bundle, "--unpack", "DIR"]),),
            )
        here = parts.join(here, app.cwd / args.unpack, signers=signers, env=app.env)
    return verifying.verify(here, signers=signers, env=app.env, base=app.cwd / args.base if args.base else None)
