# The build environment as an image: compilers, the CUDA toolkit, spark-build. docs/images.md says how it is used.
# Generated from the recipes by builder/image/builder_file.py. Change it there, then run: python -m builder.cli.reference
#
#   docker build -f Dockerfile.builder -t spark-build .
#   docker run --rm -v spark-build:/data spark-build recipe flashinfer
#
# Secrets that a build may have, none of which stays: ca (certificates in PEM, for apt, pip and rustup), pip.conf.

# Another one with Debian's tools will do, such as one's own mirror: --build-arg BASE=…
ARG BASE=docker.io/nvidia/cuda:13.0.3-devel-ubuntu24.04@sha256:b7ae301dea2c162444795462ce17a05f6a516e5a75944b57af5b88540a1a2266
FROM ${BASE} AS system

# What flashinfer, triton and vllm need; the last step holds the versions against what they ask for.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=secret,id=ca,mode=0444 \
    set -eu; \
    export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/tmp/apt.conf; \
    if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo "/run/secrets/ca";' >/tmp/apt.conf; fi; \
    touch /tmp/apt.conf; \
    rm -f /etc/apt/apt.conf.d/docker-clean; \
    apt-get update; \
    apt-get install -y --no-install-recommends \
        ca-certificates \
        clang \
        g++ \
        git \
        libnuma-dev \
        lld \
        openssh-client \
        python3 \
        python3-dev \
        python3-venv \
        zlib1g-dev; \
    rm -f /tmp/apt.conf

# The parts of the toolkit that are used, where BASE has none. Empty: none, it is mounted at /usr/local/cuda when it is used.
ARG CUDA=13-0
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=secret,id=ca,mode=0444 \
    set -eu; \
    if [ -z "${CUDA}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then exit 0; fi; \
    export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/tmp/apt.conf; \
    if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo "/run/secrets/ca";' >/tmp/apt.conf; fi; \
    touch /tmp/apt.conf; \
    rm -f /etc/apt/apt.conf.d/docker-clean; \
    apt-get update; \
    apt-get install -y --no-install-recommends \
        "cuda-cccl-${CUDA}" \
        "cuda-cudart-dev-${CUDA}" \
        "cuda-driver-dev-${CUDA}" \
        "cuda-nvcc-${CUDA}" \
        "cuda-nvrtc-dev-${CUDA}" \
        "cuda-profiler-api-${CUDA}" \
        "libcublas-dev-${CUDA}" \
        "libcufft-dev-${CUDA}" \
        "libcurand-dev-${CUDA}" \
        "libcusolver-dev-${CUDA}" \
        "libcusparse-dev-${CUDA}" \
        "libnvjitlink-dev-${CUDA}" || { echo "BASE has no nvcc, and no package repository with it: take another BASE, or CUDA= and a toolkit mounted at /usr/local/cuda" >&2; exit 1; }; \
    rm -f /tmp/apt.conf

# For vllm --with rust: a toolchain such as RUST=1.95, by the distribution's rustup. Empty: none.
ARG RUST=""
ENV RUSTUP_HOME=/opt/rustup
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=secret,id=ca,mode=0444 \
    set -eu; \
    if [ -z "${RUST}" ]; then exit 0; fi; \
    export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/tmp/apt.conf; \
    if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo "/run/secrets/ca";' >/tmp/apt.conf; fi; \
    touch /tmp/apt.conf; \
    rm -f /etc/apt/apt.conf.d/docker-clean; \
    apt-get update; \
    apt-get install -y --no-install-recommends \
        rustup \
        protobuf-compiler; \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    CARGO_HOME=/tmp/cargo rustup toolchain install --profile minimal --no-self-update "${RUST}"; \
    CARGO_HOME=/tmp/cargo rustup default "${RUST}"; \
    rm -rf /tmp/cargo; \
    rm -f /tmp/apt.conf

# Ubuntu's image has a user of that number already.
RUN set -eu; \
    getent passwd 1000 >/dev/null || useradd --uid 1000 --create-home --shell /bin/bash builder; \
    install -d -o 1000 -g 1000 /data

# spark-build, compiled; what that takes stays behind in this stage.
FROM system AS tool
COPY requirements-image.txt /tmp/spark-build/
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=pip.conf \
    set -eu; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi; \
    python3 -m venv /opt/spark-build; \
    /opt/spark-build/bin/pip --disable-pip-version-check install --require-hashes --only-binary :all: -r /tmp/spark-build/requirements-image.txt

COPY CMakeLists.txt LICENSE README.md pyproject.toml /tmp/spark-build/
COPY builder /tmp/spark-build/builder
COPY launcher /tmp/spark-build/launcher
COPY recipes /tmp/spark-build/recipes
COPY patches /tmp/spark-build/patches
RUN set -eu; \
    /opt/spark-build/bin/pip --disable-pip-version-check install --no-index --no-deps --no-build-isolation --no-cache-dir /tmp/spark-build; \
    /opt/spark-build/bin/pip --disable-pip-version-check uninstall -y cmake ninja pathspec scikit-build-core

FROM system
ARG BASE
ARG CUDA=13-0
ARG RUST=""
LABEL org.opencontainers.image.title="spark-build" \
      org.opencontainers.image.description="Builds Triton, FlashInfer and vLLM from source for NVIDIA GB10" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=tool /opt/spark-build /opt/spark-build

# Whether compilers and packages are what the recipes ask for: a BASE that is too old ends here.
RUN set -eu; \
    ln -s /opt/spark-build/bin/spark-build /usr/local/bin/spark-build; \
    mkdir -p /usr/share/spark-build; \
    dpkg-query -W >/usr/share/spark-build/packages.txt; \
    set -- doctor --recipe flashinfer --recipe triton --recipe vllm; \
    if [ -z "${RUST}" ]; then set -- "$@" --without rust; fi; \
    if [ -z "${CUDA}" ]; then set -- "$@" --cuda none; fi; \
    HOME=/tmp/home spark-build "$@"; \
    rm -rf /tmp/home

# All that is kept: sources, wheelhouse with its compile cache, and config/spark-build with config.toml and recipes/.
# One file of certificates for all that downloads, so that one mount puts a company's in its place.
ENV HOME=/data \
    LANG=C.UTF-8 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    SPARK_BUILD_SOURCES=/data/sources \
    SPARK_BUILD_WHEELHOUSE=/data/wheelhouse \
    XDG_CONFIG_HOME=/data/config
USER 1000
WORKDIR /data
ENTRYPOINT ["spark-build"]
CMD ["--help"]
