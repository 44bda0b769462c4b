"""From what the backends left to wheels that can be published: one label for all, the same bytes each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import digest, stages
from builder.pipeline.provenance import provenance
from builder.wheel import label, pack, read, sbom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.pipeline.attempt import Attempt
    from builder.pipeline.world import World

__all__ = ["epoch_of", "pack_all", "provenance", "signer"]


def epoch_of(pin: stages.Pin) -> int:
    """Return SOURCE_DATE_EPOCH: the source's own time."""
    return max(pin.time, stages.ZIP_EPOCH)


def signer(world: World) -> Callable[[bytes], bytes] | None:
    """Return what signs records here, or None where no key is configured; ask before a build, so that a bad key costs none.

    Raises HostError ``signing-key`` or ``ssh-keygen-missing``.
    """
    from builder import signature  # noqa: PLC0415  # few have a key

    return signature.signer(world.config.signing_key, env=world.env)


def pack_all(attempt: Attempt, built: Sequence[stages.Built], *, name: str | None = None) -> list[stages.Wheel]:
    """Label, strip and pack; a rebuild with other bits under a name that is taken gets a label of its own (``r2``).

    With `name` that label is used whatever the bits are, for a comparison: such wheels aren't to be published.
    """
    if name:
        return _packed(attempt, built, name)
    house, fingerprint = attempt.world.house, attempt.one.plan.inputs.fingerprint
    revision = 1
    while True:
        name = label.make(house.first_planned(fingerprint), fingerprint, revision=revision)
        wheels = _packed(attempt, built, name)
        if not any(house.taken(wheel.filename, wheel.sha256) for wheel in wheels):
            return wheels
        revision += 1


def _packed(attempt: Attempt, built: Sequence[stages.Built], name: str) -> list[stages.Wheel]:
    one, space = attempt.one, attempt.space
    document = dict(one.plan.inputs.document)
    recipe, outputs = one.loaded.recipe, {output.name: output for output in one.outputs}
    versions = {item.output: label.labelled(read.inspect(item.path).version, name) for item in built}
    return [
        pack.finish(
            item,
            dest=space.root / "wheels",
            label=name,
            siblings=versions,
            version_module=outputs[item.output].version_module or recipe.version.module,
            strip=recipe.build.strip,
            epoch=epoch_of(one.plan.pin),
            extra_files={
                "spark-build/inputs.json": digest.canonical_json(document),
                sbom.MEMBER: sbom.write(document, output=item.output, version=versions[item.output], label=name),
            },
            expected=item.output,
            env=attempt.world.env,
            scratch=space.root / "tmp",
            torch=one.torch.version if one.torch and recipe.build.torch_requires == "built" else None,
        )
        for item in built
    ]
