#!/bin/sh
# Makes .venv and installs one lock into it: scripts/environment.sh demo|dev|...
# PYTHON names the interpreter; otherwise the first suitable one on the PATH is taken.
set -eu
lock=requirements/$1.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_PROGRESS=1

suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }
fail() { echo "$1" >&2; exit 1; }

python=
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
    if suitable "$candidate"; then python=$candidate && break; fi
done
[ -n "$python" ] || fail "Lookalike needs Python 3.11 to 3.14, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true). Choose one: make PYTHON=/path/to/python3.11"

if ! { suitable .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null; }; then
    rm -rf .venv
    "$python" -m venv .venv || fail "$python can't make a virtual environment; on Debian: apt-get install python3-venv"
fi
echo "Installing the pinned packages of $lock into .venv (the first time: 3 GB to fetch, 6 GB on disk, one to three minutes) ..."
started=$(date +%s)
.venv/bin/python -m pip install -qq --require-hashes --requirement requirements/uv.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes --requirement "$lock"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . --editable clients/python
echo "Installed in $(($(date +%s) - started)) s."
