#!/usr/bin/env bash
# Runs the tests of the library with the oldest packages that pyproject.toml allows.
#
#   scripts/check_lower_bounds.sh [PYTEST_ARGUMENT...]
#
# uv takes the versions from pyproject.toml: of every package that is named there the lowest, of
# those that these need in turn the newest. Arguments choose tests:
#
#   scripts/check_lower_bounds.sh tests/masking
#
# PYTHON is the interpreter. Default: python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet uv
export UV_PYTHON_DOWNLOADS=never
uv() { "$work/tools/bin/uv" pip "$@" --python "$work/oldest"; }

"$work/tools/bin/uv" venv --quiet --python "$python" "$work/oldest"
uv install --quiet --requirements pyproject.toml --extra dev --extra insights \
    --resolution lowest-direct
uv install --quiet --no-deps --editable .
# The same cv2 without libGL, which a server does not have.
cv2=$("$work/oldest/bin/python" -c 'from importlib.metadata import version as v; print(v("opencv-python"))')
uv install --quiet --no-deps --reinstall "opencv-python-headless==$cv2"
uv list

(($#)) || set -- tests captum_groupcam --ignore=tests/benchmarks
# Old packages use what new ones are about to drop, and warn of it: that is theirs.
export OMP_NUM_THREADS=1
"$work/oldest/bin/python" -m pytest -p no:cacheprovider \
    -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning \
    "$@"
