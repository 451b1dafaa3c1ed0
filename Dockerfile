# syntax=docker/dockerfile:1
# One image for api and worker. It is made by the same script as a checkout: scripts/setup --service.
# It runs as a user of its own, writes to /var/lib/recast and /tmp alone (--read-only --tmpfs /tmp), and needs no
# capability (--cap-drop ALL --security-opt no-new-privileges): see SECURITY.md. It listens on all addresses of the
# container, where a request needs a key; with RECAST_ALLOW_UNAUTHENTICATED=true it answers to names of the machine and IP
# addresses alone, and to what RECAST_ALLOWED_HOSTS names.
# The base is named by its digest, of all platforms: it moves only when this line is changed. Renovate (renovate.json) does
# that; by hand, take the digest that `docker buildx imagetools inspect python:3.11-slim-bookworm` tells.
#
# What is installed is what requirements.lock pins, file by file (pip --require-hashes): the default wheels of PyTorch,
# which run on a CPU too but bring several GB of CUDA. For the CPU wheels of another index, write them into the lock first:
#   scripts/lock --index <index of CPU wheels> --upgrade-package torch --upgrade-package torchvision
#   docker build --build-arg PIP_EXTRA_ARGS="--extra-index-url <index of CPU wheels>" -t recast .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_ARGS=""
WORKDIR /opt/recast
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY scripts/setup scripts/setup
COPY app app
COPY plugin-api plugin-api
COPY client client
COPY docs docs
RUN PIP_EXTRA_ARGS="${PIP_EXTRA_ARGS}" PIP_NO_CACHE_DIR=1 scripts/setup --service
# What is in the image, as CycloneDX: /opt/recast/sbom.cdx.json
COPY requirements-sbom.lock ./
RUN python -m venv /tmp/sbom \
    && /tmp/sbom/bin/pip install --quiet --no-cache-dir ${PIP_EXTRA_ARGS} --require-hashes -r requirements-sbom.lock \
    && /tmp/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o sbom.cdx.json .venv/bin/python \
    && rm -r /tmp/sbom

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Recast" \
      org.opencontainers.image.description="Converts PyTorch weights to verified ONNX and TorchScript" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --uid 10001 recast \
    && install -d -o recast -g recast /var/lib/recast
COPY --from=build --chown=root:root /opt/recast /opt/recast
ENV PATH=/opt/recast/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    RECAST_DATA_DIR=/var/lib/recast \
    RECAST_HOST=0.0.0.0 \
    RECAST_PORT=8000
USER recast
WORKDIR /var/lib/recast
VOLUME /var/lib/recast
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['RECAST_PORT']}/readyz\", timeout=4)"]
ENTRYPOINT ["recast"]
CMD ["serve"]
