"""Dockerfile.builder, generated from what recipes need; written by ``python -m builder.cli.reference``.

It keeps to what docker since 20.10 (BuildKit), podman and buildah all take: no ``# syntax`` line (docker would fetch a front
end), no here-documents, no ``COPY --link``, no ``SHELL`` (lost in OCI's format of images), and no bind mount, whose changes
podman and buildah don't see when they look into their cache. apt's lists are in no cache mount: apt deletes the file there
that buildah 1.28 locks, which then waits for itself. No ``VOLUME``: buildah mounts an empty one over what ``-v`` names, or
under it, as it happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.image import bases, system
from builder.recipe import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.image.system import Needs

__all__ = ["FILE", "LOCK", "text"]

FILE = "Dockerfile.builder"

#: What is installed by hash: the run-time libraries, and those in `BACKEND`.
LOCK = "requirements-image.txt"

#: In the lock for making spark-build's own wheel, and gone afterwards: recipes bring their own.
BACKEND = ("cmake", "ninja", "pathspec", "scikit-build-core")

#: What spark-build itself starts or is compiled with, whatever recipes ask for.
OWN = ("ca-certificates", "g++", "git", "openssh-client", "python3", "python3-venv")

#: The toolkit that goes with `bases.BUILDER` and with torch's wheels.
CUDA = "13-0"

_APT = (
    "--mount=type=cache,target=/var/cache/apt,sharing=locked",
    "--mount=type=tmpfs,target=/var/lib/apt/lists",
    "--mount=type=secret,id=ca,mode=0444",
)

_INSTALL = "apt-get install -y --no-install-recommends"

_HEAD = f"""\
# The build environment as an image: compilers, the CUDA toolkit, spark-build. docs/images.md says how it is used.
# Generated from the recipes by builder/image/builder_file.py. Change it there, then run: python -m builder.cli.reference
#
#   docker build -f {FILE} -t spark-build .
#   docker run --rm -v spark-build:/data spark-build recipe flashinfer
#
# Secrets that a build may have, none of which stays: ca (certificates in PEM, for apt, pip and rustup), pip.conf.
"""


def text(needs: Needs | None = None) -> str:
    """Return the whole file for the recipes that come with spark-build, or for `needs`."""
    needs = system.needs((find.shipped(),)) if needs is None else needs
    parts = (_HEAD, _system(needs), _cuda(needs), _rust(needs), _user(), _tool(), _final(needs))
    return "\n".join(parts)


def _run(mounts: Iterable[str], steps: Iterable[str]) -> str:
    """Return a RUN instruction; the first step that fails ends it."""
    return "RUN " + " \\\n    ".join([*mounts, "; \\\n    ".join(["set -eu", *steps])]) + "\n"


def _apt(*steps: str, unless: str = "") -> str:
    """Return a RUN for apt, which keeps what it downloads and trusts the certificates that were given.

    Where `unless` holds, a test in shell, nothing is done.
    """
    first = (
        *([f"if {unless}; then exit 0; fi"] if unless else []),
        "export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/tmp/apt.conf",
        "if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo \"/run/secrets/ca\";' >/tmp/apt.conf; fi",
        "touch /tmp/apt.conf",
        "rm -f /etc/apt/apt.conf.d/docker-clean",
    )
    return _run(_APT, (*first, *steps, "rm -f /tmp/apt.conf"))


def _listed(packages: Iterable[str]) -> str:
    return "".join(f" \\\n        {one}" for one in packages)


def _system(needs: Needs) -> str:
    packages = sorted({*OWN, *needs.packages})
    return f"""\
# Another one with Debian's tools will do, such as one's own mirror: --build-arg BASE=…
ARG BASE={bases.BUILDER}
FROM ${{BASE}} AS system

# What {_and(needs.recipes)} need; the last step holds the versions against what they ask for.
{_apt("apt-get update", _INSTALL + _listed(packages))}"""


def _cuda(needs: Needs) -> str:
    lacking = "BASE has no nvcc, and no package repository with it: take another BASE, or CUDA= and a toolkit mounted"
    there = '[ -z "${CUDA}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]'
    names = "".join(f' \\\n        "{one}-${{CUDA}}"' for one in needs.cuda_parts)
    install = f'{_INSTALL}{names} || {{ echo "{lacking} at /usr/local/cuda" >&2; exit 1; }}'
    return f"""\
# The parts of the toolkit that are used, where BASE has none. Empty: none, it is mounted at /usr/local/cuda when it is used.
ARG CUDA={CUDA}
{_apt("apt-get update", install, unless=there)}"""


def _rust(needs: Needs) -> str:
    variants = ", ".join(f"{one.recipe} --with {one.variant}" for one in needs.rusty)
    packages = _listed(["rustup", *needs.rust_packages])
    return f"""\
# For {variants}: a toolchain such as RUST=1.95, by the distribution's rustup. Empty: none.
ARG RUST=""
ENV RUSTUP_HOME=/opt/rustup
{
        _apt(
            "apt-get update",
            _INSTALL + packages,
            "if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi",
            'CARGO_HOME=/tmp/cargo rustup toolchain install --profile minimal --no-self-update "${RUST}"',
            'CARGO_HOME=/tmp/cargo rustup default "${RUST}"',
            "rm -rf /tmp/cargo",
            unless='[ -z "${RUST}" ]',
        )
    }"""


def _user() -> str:
    steps = (
        "getent passwd 1000 >/dev/null || useradd --uid 1000 --create-home --shell /bin/bash builder",
        "install -d -o 1000 -g 1000 /data",
    )
    return "# Ubuntu's image has a user of that number already.\n" + _run((), steps)


def _tool() -> str:
    pip = "/opt/spark-build/bin/pip --disable-pip-version-check"
    mounts = (
        "--mount=type=cache,target=/root/.cache/pip,sharing=locked",
        "--mount=type=secret,id=ca",
        "--mount=type=secret,id=pip.conf",
    )
    steps = (
        "if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi",
        "if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi",
        "python3 -m venv /opt/spark-build",
        f"{pip} install --require-hashes --only-binary :all: -r /tmp/spark-build/{LOCK}",
    )
    built = (
        f"{pip} install --no-index --no-deps --no-build-isolation --no-cache-dir /tmp/spark-build",
        f"{pip} uninstall -y {' '.join(BACKEND)}",
    )
    return f"""\
# spark-build, compiled; what that takes stays behind in this stage.
FROM system AS tool
COPY {LOCK} /tmp/spark-build/
{_run(mounts, steps)}
COPY CMakeLists.txt LICENSE README.md pyproject.toml /tmp/spark-build/
COPY builder /tmp/spark-build/builder
COPY launcher /tmp/spark-build/launcher
COPY recipes /tmp/spark-build/recipes
COPY patches /tmp/spark-build/patches
{_run((), built)}"""


def _final(needs: Needs) -> str:
    rust = " ".join(f"--without {one.variant}" for one in needs.rusty)
    steps = (
        "ln -s /opt/spark-build/bin/spark-build /usr/local/bin/spark-build",
        "mkdir -p /usr/share/spark-build",
        "dpkg-query -W >/usr/share/spark-build/packages.txt",
        f"set -- doctor --recipe {' --recipe '.join(needs.recipes)}",
        f'if [ -z "${{RUST}}" ]; then set -- "$@" {rust}; fi',
        'if [ -z "${CUDA}" ]; then set -- "$@" --cuda none; fi',
        'HOME=/tmp/home spark-build "$@"',
        "rm -rf /tmp/home",
    )
    return f"""\
FROM system
ARG BASE
ARG CUDA={CUDA}
ARG RUST=""
LABEL org.opencontainers.image.title="spark-build" \\
      org.opencontainers.image.description="Builds Triton, FlashInfer and vLLM from source for NVIDIA GB10" \\
      org.opencontainers.image.licenses="Apache-2.0" \\
      org.opencontainers.image.base.name="${{BASE}}"
COPY --from=tool /opt/spark-build /opt/spark-build

# Whether compilers and packages are what the recipes ask for: a BASE that is too old ends here.
{_run((), steps)}
# All that is kept: sources, wheelhouse with its compile cache, and config/spark-build with config.toml and recipes/.
# One file of certificates for all that downloads, so that one mount puts a company's in its place.
ENV HOME=/data \\
    LANG=C.UTF-8 \\
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \\
    SPARK_BUILD_SOURCES=/data/sources \\
    SPARK_BUILD_WHEELHOUSE=/data/wheelhouse \\
    XDG_CONFIG_HOME=/data/config
USER 1000
WORKDIR /data
ENTRYPOINT ["spark-build"]
CMD ["--help"]
"""


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
