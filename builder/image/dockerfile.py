"""The two files that a final image is built from. Pure: the same settings give the same text.

They keep to what docker since 20.10 (BuildKit), podman and buildah all take: no ``# syntax`` line (docker would fetch a
front end), no here-documents, no ``COPY --link``, no ``RUN --network``, no ``SHELL`` (lost in OCI's format of images). The
first one may reach the network and the second one mustn't, so they are two.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from builder.bundle import companions
from builder.image.settings import CACHE, PARTS, VENV

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from builder.image.settings import Settings

__all__ = ["FILE", "MARK", "SHARE", "SYSTEM", "TOOL", "final", "linkable", "system"]

#: The files' names, and the folder of spark-build beside them.
SYSTEM, FILE, TOOL = "Dockerfile.system", "Dockerfile", "tool"

#: How both files begin.
MARK = "# Written by spark-build image"

#: Where an image says what it is made of.
SHARE = "/usr/share/spark-build"

_USER = "1000"

#: Whether something is there already, by what of the distribution brings it; else dpkg is asked for the package.
_THERE = {
    "gcc": "command -v cc",
    "g++": "command -v c++",
    "cuda-nvcc": "command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]",
    "cuda-cudart-dev": "[ -e /usr/local/cuda/include/cuda_runtime.h ]",
    "cuda-driver-dev": "[ -e /usr/local/cuda/lib64/stubs/libcuda.so ]",
}
_HEADER = "import os, sysconfig; os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h'))"

_HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"


def system(settings: Settings) -> str:
    """Return ``Dockerfile.system``: the base, with what of the system is missing there, a user, and a folder for caches."""
    no_apt = 'echo "error: the base has no apt-get, and lacks $*: another --base" >&2'
    no_network = 'echo "error: the archives of the base are out of reach, and it lacks $*: a --base that has them" >&2'
    no_package = f'echo "error: the distribution of the base has no $one; {_advice(settings)}" >&2'
    each = f'for one in "$@"; do apt-cache show "$one" >/dev/null 2>&1 || {no_package}; done'
    why = f'if [ "$reached" ]; then {each}; else {no_network}; fi'
    logs = "/var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache"
    steps = (
        "set --",
        *(f'{{ {test}; }} >/dev/null 2>&1 || set -- "$@" {package}' for package, test in _packages(settings)),
        'if [ "$#" -eq 0 ]; then exit 0; fi',
        f"command -v apt-get >/dev/null || {{ {no_apt}; exit 1; }}",
        "reached=yes",
        # Without the option it ends with 0 when it reached nothing; an archive that isn't needed may be away.
        "apt-get update -o APT::Update::Error-Mode=any || reached=",
        "export DEBIAN_FRONTEND=noninteractive",
        f'apt-get install -y --no-install-recommends "$@" || {{ {why}; exit 1; }}',
        f"rm -rf /var/lib/apt/lists/* {logs}",
    )
    user = (
        f"getent passwd {_USER} >/dev/null || useradd --uid {_USER} --home-dir {CACHE} --no-create-home spark",
        f"install -d -o {_USER} -g {_USER} {CACHE}",
    )
    return f"""\
{MARK}: the system of the final image. Only what BASE lacks is installed.
ARG BASE={settings.base}
FROM ${{BASE}}
USER 0
{_run((), steps)}
# Ubuntu's image has a user of that number already. What packages compile and fetch is kept in {CACHE}.
{_run((), user)}
USER {_USER}
"""


def final(settings: Settings, *, base: str, signed: bool = False, statements: bool = False) -> str:
    """Return ``Dockerfile``: the bundle installed on `base`, an image of the other file, checked, and described.

    `signed` and `statements` say what lies in the bundle: the manifest's signature, and records of how ours were made.
    """
    return f"""\
{MARK}: the bundle, installed and checked without a network.
#
#   docker build -f {SYSTEM} -t {base} .
#   docker build --network none -t TAG .
#
# Docker before 23 wants DOCKER_BUILDKIT=1 for it; podman and buildah want --format docker, else they drop the HEALTHCHECK.
ARG BASE={base}
FROM ${{BASE}} AS installed
USER 0
ENV PATH={":".join(settings.paths)}:${{PATH}}
{_variables(settings.env)}
{_installed(settings)}
{_share(signed=signed, statements=statements)}
USER {_USER}
# All that can be found out without a GPU, by the user that it will have.
FROM installed AS check
{_checked(settings)}
# A stage that nothing needs is passed over: this one needs the other, and takes nothing of it.
FROM installed
RUN --mount=type=bind,from=check,source=/tmp,target=/check test -e /check/checked
{_pairs("LABEL", settings.labels)}
WORKDIR {CACHE}
{_starts(settings)}"""


def _packages(settings: Settings) -> list[tuple[str, str]]:
    """Return what has to be there, each with the test of whether it is; Python first, since others are found by it."""
    python = settings.python
    found = [(python, f"command -v {python}"), ("ca-certificates", _by_dpkg("ca-certificates"))]
    for need in settings.needs:
        for name in companions.NEEDS[need].packages if need in companions.NEEDS else ():
            if name == "python3-dev":
                found.append((f"{python}-dev", f'{python} -c "{_HEADER}"'))
            elif name.startswith("cuda-"):
                found.append((f"{name}-{settings.cuda.replace('.', '-')}", _THERE.get(name) or _by_dpkg(name)))
            else:
                found.append((name, _THERE.get(name) or _by_dpkg(name)))
    return [*found, *((word, _by_dpkg(*word.split("="))) for word in settings.apt)]


def _by_dpkg(package: str, version: str = "") -> str:
    asked, wanted = ("installed", "${db:Status-Status}")
    if version:
        asked, wanted = f"{asked} {version}", f"{wanted} ${{Version}}"
    return f"[ \"$(dpkg-query -W -f='{wanted}' {package})\" = '{asked}' ]"


def _advice(settings: Settings) -> str:
    told = f"its Python has to be {settings.target.python} (--target-python)"
    if "nvcc" not in settings.needs:
        return told
    names = " ".join(f"{name}=={settings.cuda}.*" for name in PARTS)
    return f"{told}; nvcc comes as wheels, too, by these names beside the others: {names}"


def _installed(settings: Settings) -> str:
    """Return the step that installs. Mount points are folders that bases lack: buildah takes them away afterwards.

    What uv notes of a wheel's age goes, so that the same bundle gives the same files. Byte code is made here, since whoever
    runs the image can't write it and would wait for it at every start; it holds no times, since those of files may be set to
    one moment later. Files of another Python's syntax are no mistake.
    """
    mounts = ("--mount=type=bind,source=bundle,target=/bundle",)
    steps = (
        f"PYTHON={settings.python} sh /bundle/install.sh {VENV} >/dev/null",
        "export PYTHONHASHSEED=0",
        f"find {VENV}/lib -name RECORD -exec sed -i '/[.]dist-info.uv_cache[.]json,/d' '{{}}' +",
        f"find {VENV}/lib -name uv_cache.json -delete",
        *linkable(settings.toolkit if "compiler" in settings.needs else ""),
        f"{VENV}/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash {VENV}/lib || true",
    )
    return _run(mounts, steps)


def linkable(toolkit: str, python: str = f"{VENV}/bin/python") -> tuple[str, ...]:
    """Return what makes a toolkit of wheels one to link against, as FlashInfer does: ``-L$CUDA_HOME/lib64 -lcudart -lcuda``.

    The wheels have libraries for running alone, without the names that a linker looks for. The driver's own library comes
    with the driver; for linking the vendor has a stub in ``cuda-driver-dev``, and here is one of the names in ``cuda.h``.
    """
    if not toolkit:
        return ()
    link = '[ -e "$name" ] || ln -s "${file##*/}" "$name"'
    names = "sorted(set(re.findall(r'\\bcu[A-Z]\\w*', open(sys.argv[1]).read())))"
    stub = f"import re, sys; print(*(f'void {{one}}(void) {{{{}}}}' for one in {names}), sep='\\n')"
    return (
        f"[ -e {toolkit}/lib64 ] || ln -s lib {toolkit}/lib64",
        f'for file in {toolkit}/lib/*.so.*; do name="${{file%%.so.*}}.so"; {link}; done',
        f"install -d {toolkit}/lib64/stubs",
        f'{python} -c "{stub}" {toolkit}/include/cuda.h >/tmp/cuda.c',
        f"cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o {toolkit}/lib64/stubs/libcuda.so /tmp/cuda.c",
        "rm /tmp/cuda.c",
    )


def _share(*, signed: bool, statements: bool) -> str:
    names = [
        "manifest.json",
        *(["manifest.json.sig"] if signed else []),
        "pylock.toml",
        "requirements.txt",
        "sbom.cdx.json",
    ]
    mounts = ("--mount=type=bind,source=bundle,target=/bundle",)
    steps = [
        f"install -d {SHARE}",
        f"install -m 0644 -t {SHARE} {' '.join(f'/bundle/{name}' for name in names)}",
        f"dpkg-query -W >{SHARE}/system-packages.txt",
    ]
    if statements:
        steps += [
            f"install -d {SHARE}/statements",
            f"find /bundle/files -name '*.provenance.json*' -exec install -m 0644 -t {SHARE}/statements '{{}}' +",
        ]
    return _run(mounts, steps)


def _checked(settings: Settings) -> str:
    python = f"{settings.python} -B -m builder"
    about = f"--env {VENV} --target {settings.capability} --color never"
    manifest = f"--manifest {SHARE}/manifest.json"
    accept = "".join(f" {shlex.quote(f'--accept={word}')}" for word in settings.accept)
    steps = (
        "export PYTHONPATH=/tool",
        f"{python} doctor {about} {manifest}",
        f"{python} audit {about} --ours{accept}",
        "touch /tmp/checked",
    )
    return _run((f"--mount=type=bind,source={TOOL},target=/tool",), steps)


def _starts(settings: Settings) -> str:
    """Return how the image starts: with no entrypoint, so that any command of it can be run."""
    if not settings.serves:
        return 'ENTRYPOINT []\nCMD ["python"]\n'
    probe = json.dumps(["python", "-c", _HEALTH])
    return f"""\
EXPOSE 8000
# A model may be fetched and its kernels compiled before the first answer.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30m --retries=3 CMD {probe}
ENTRYPOINT []
CMD ["vllm", "serve", "--help"]
"""


def _variables(env: Mapping[str, str]) -> str:
    """Return the variables; one whose value has a ``$`` stands alone, since one instruction knows nothing of its own."""
    plain = {name: value for name, value in env.items() if "$" not in value}
    odd = ({name: value} for name, value in env.items() if "$" in value)
    return "\n".join(_pairs("ENV", each) for each in (*odd, plain))


def _pairs(word: str, pairs: Mapping[str, str]) -> str:
    """Return an instruction of names and values."""
    rows = [f"{name}={_quoted(value)}" for name, value in pairs.items()]
    return f"{word} " + f" \\\n{' ' * (len(word) + 1)}".join(rows)


def _quoted(value: str) -> str:
    """Return a value as the builder's own parser reads it back: not a shell's."""
    plain = re.sub(r'([\\"$])', r"\\\1", value)
    return plain if re.fullmatch(r"[A-Za-z0-9_./:,=+-]+", plain) else f'"{plain}"'


def _run(mounts: Sequence[str], steps: Iterable[str]) -> str:
    """Return an instruction that ends with the first step that fails."""
    lines = [*(f"{one} \\" for one in mounts), "set -eu; \\", *(f"{step}; \\" for step in steps)]
    return "RUN " + "\n    ".join(lines).removesuffix("; \\")
