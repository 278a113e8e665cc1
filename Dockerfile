# One image for all roles of a job: head, workers, submitter and the autoscaler beside the head.
#
#   docker build -t synthfer --build-arg REVISION="$(git rev-parse HEAD)" .                # with CUDA
#   docker build -t synthfer:cpu --build-arg VARIANT=cpu --build-arg REVISION=... .        # without
#
# It runs as 1000:1000 under a read-only root: at run time only /tmp and /dev/shm are written. It holds no weights but
# those of builtin:faces, which are part of the package. k8s/README.md says how to give it models.
#
# The digest is that of Python 3.11.16 in October 2026, for all platforms. See what the tag means today with
#   docker buildx imagetools inspect python:3.11-slim-bookworm
# Another digest brings Debian's security updates: change the line, build, and run a job before you ship it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS base

# The list of what to install: a change of pyproject.toml that does not change it leaves the next stage in the cache.
FROM base AS requirements
# Extras of pyproject.toml. `identity` is not among them: it brings 100 MB of weights.
ARG EXTRAS=avatars,lora,track
COPY pyproject.toml /
RUN python -c 'import os, tomllib; p = tomllib.load(open("/pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *(d for e in os.environ["EXTRAS"].split(",") if e for d in p["optional-dependencies"][e]), sep="\n")' > /requirements.txt

# Gigabytes that change seldom, in a layer of their own. Wheels alone: nothing is compiled, no package's code is run.
# Bytecode is written here, since a read-only root cannot keep it and each worker would compile all of torch and Ray.
FROM base AS dependencies
ARG VARIANT=gpu
COPY --from=requirements /requirements.txt /
COPY constraints.txt /
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$VARIANT" in \
      gpu) set -- torch ;; \
      cpu) set -- torch --extra-index-url https://download.pytorch.org/whl/cpu ;; \
      *) echo "VARIANT is gpu or cpu, not $VARIANT" >&2; exit 2 ;; \
    esac \
    && python -m venv --without-pip /opt/venv \
    && install="pip --python /opt/venv/bin/python install --disable-pip-version-check --only-binary :all: -c /constraints.txt" \
    && $install "$@" \
    && $install -r /requirements.txt

# The code, readable for everybody whatever the umask of the checkout was.
FROM base AS code
COPY synthfer /opt/synthfer/synthfer
COPY jobs /opt/synthfer/jobs
RUN chmod -R a+rX /opt/synthfer && python -m compileall -q /opt/synthfer

FROM base
# Debian packages to add: generator.compile=true needs a compiler where it runs, PACKAGES=g++.
ARG PACKAGES=
# A name for the user, since torch asks for it; a login shell forgets PATH, so it is told again.
# hadolint ignore=DL3008,SC2016
RUN groupadd --gid 1000 synthfer \
    && useradd --uid 1000 --gid 1000 --home-dir /tmp/home --create-home synthfer \
    && echo 'PATH=/opt/venv/bin:$PATH' > /etc/profile.d/synthfer.sh \
    && if [ -n "$PACKAGES" ]; then \
         apt-get update && apt-get install -y --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
       fi
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/synthfer /opt/synthfer
# /tmp is an empty volume in a pod, so that HOME does not exist at first: what writes there makes its own folders.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/synthfer \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    HOME=/tmp/home
WORKDIR /opt/synthfer
USER 1000:1000
CMD ["python", "jobs/generate.py", "--help"]
# Last, since it changes with every commit.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="synthfer" \
      org.opencontainers.image.description="Balanced facial-expression datasets at scale, and proof of whether they help" \
      org.opencontainers.image.revision="$REVISION"
