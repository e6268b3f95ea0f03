# Lookalike in a container: the service by default, the indexing job by its command line.
#
#   docker build -t lookalike .                          for a CPU
#   docker build -t lookalike:cuda --build-arg TORCH=cuda .    for an NVIDIA GPU
#   docker build -t lookalike-proxy --target proxy .           nginx in front of it, as docker-compose.yml runs it
#
# Dependencies, models and code are separate layers: a new release of the code moves a few megabytes.

# --- the pinned packages, in an environment of their own
FROM docker.io/library/python:3.11-slim AS dependencies
WORKDIR /build
# Any version of binutils suffices: slim-torch.sh only makes stub libraries with it.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null && rm -rf /var/lib/apt/lists/*
COPY requirements/uv.txt requirements/
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/uv.txt
# The system's certificates, so that a private certificate authority can be mounted over /etc/ssl/certs.
ENV UV_SYSTEM_CERTS=1
ENV PATH=/opt/uv/bin:$PATH UV_NO_PROGRESS=1 UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv
COPY requirements/container.txt requirements/
COPY scripts/slim-torch.sh scripts/
ARG TORCH=cpu
# One step, so that no layer holds the 4 GB that a CPU does not need. Bytecode is compiled here, because
# the root file system is read-only at run time; torch's own tests don't compile.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet /opt/venv && uv pip install --quiet --no-deps --require-hashes -r requirements/container.txt \
    && if [ "$TORCH" = cpu ]; then sh scripts/slim-torch.sh /opt/venv/lib/python3.11/site-packages; fi \
    && /opt/venv/bin/python -m compileall -q -j 0 -x torch/testing/_internal /opt/venv/lib

# --- this project's code
FROM dependencies AS code
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY cli cli
COPY evaluation evaluation
COPY indexing indexing
COPY lookalike lookalike
COPY training training
RUN uv pip install --quiet --no-deps --compile-bytecode --target /opt/lookalike . && chmod -R a+rX /opt/lookalike
ENV PATH=/opt/lookalike/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/lookalike LOOKALIKE_CACHE=/var/cache/lookalike

# --- files made at build time instead of at each start: the converted encoder, the sample gallery
FROM code AS prepared
RUN lookalike encoders --prepare lite && chmod -R a+rX "$LOOKALIKE_CACHE"
COPY requirements/demo.txt requirements/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --quiet --no-deps --require-hashes -r requirements/demo.txt && lookalike gallery /pictures

# --- the proxy's image: Debian's nginx
FROM docker.io/library/python:3.11-slim AS proxy
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light >/dev/null && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 10001 /var/cache/nginx
COPY deploy/nginx-common.conf deploy/nginx-compose.conf /etc/nginx/
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGQUIT
ENTRYPOINT ["nginx", "-e", "stderr", "-c", "/etc/nginx/nginx-compose.conf", "-g", "daemon off;"]

# --- the service's image
FROM docker.io/library/python:3.11-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin lookalike \
    && install -d -o lookalike -g lookalike /collections /var/cache/lookalike
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=prepared /pictures /pictures
COPY --from=prepared --chown=lookalike:lookalike /var/cache/lookalike /var/cache/lookalike
COPY --from=code /opt/lookalike /opt/lookalike
ENV PATH=/opt/lookalike/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/lookalike PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LOOKALIKE_CACHE=/var/cache/lookalike HF_HOME=/var/cache/lookalike/huggingface
USER 10001:10001
WORKDIR /home/lookalike
ENV LOOKALIKE_HEALTH_PORT=8001
EXPOSE 8000 8001
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8001/readyz', timeout=4)"]
ENTRYPOINT ["lookalike"]
CMD ["serve", "/collections/gallery", "--host", "0.0.0.0", "--port", "8000"]
