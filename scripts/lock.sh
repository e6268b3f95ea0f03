#!/bin/sh
# Writes every lock in requirements/: exact versions with hashes, universal (Linux and macOS, Python 3.11 and later),
# no index address. Versions that still satisfy pyproject.toml stay; UPGRADE=1 takes the newest of everything.
# dev holds everything, so it is resolved first and the others are held to its versions.
set -eu
uv=.venv/bin/uv
compile() {
    "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 --fork-strategy fewest \
        --no-emit-index-url --no-emit-find-links --no-emit-package lookalike-client --custom-compile-command "make lock" ${UPGRADE:+--upgrade} "$@"
    echo "wrote $(grep -cE '^[a-z0-9]' "$out") pins to $out"
}
out=requirements/uv.txt && compile requirements/uv.in --output-file "$out"
out=requirements/dev.txt && compile pyproject.toml --extra dev --output-file "$out"
for extra in container demo train; do
    out=requirements/$extra.txt && compile pyproject.toml --extra "$extra" --constraints requirements/dev.txt --output-file "$out"
done
out=requirements/core.txt && compile pyproject.toml --constraints requirements/dev.txt --output-file "$out"
out=requirements/milvus-server.txt && compile requirements/milvus-server.in --output-file "$out"
