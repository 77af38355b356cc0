#!/usr/bin/env bash
# Builds what a release consists of, into dist/, and tries it as a user would: installed into an empty
# environment, away from the checkout.
#
#   scripts/check_release.sh [REQUIREMENT...]
#
# Requirements are installed along with the wheel, to try it with certain versions:
#
#   scripts/check_release.sh torch==2.6.0 torchvision==0.21.0 captum==0.8.0
#
# PYTHON is the interpreter that is tried. Default: python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { printf '\n== %s\n' "$*"; }

step "Build: sdist, and the wheel from the sdist"
"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet build twine
rm -rf dist
"$work/tools/bin/python" -m build --outdir dist . > "$work/build.log" 2>&1 ||
    { cat "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict dist/*
wheel=$(realpath dist/*.whl)

# Nothing of the checkout can be seen from here on.
cd "$work"

step "The library alone: $(basename "$wheel") $*"
"$python" -m venv user
user/bin/python -m pip install --quiet "$wheel" "$@"
user/bin/python -m pip check
user/bin/python -I - <<'PYTHON'
import sys
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec

import torch
from torch import nn

import captum_groupcam

assert captum_groupcam.__file__.startswith(sys.prefix), captum_groupcam.__file__
assert captum_groupcam.__version__ == version("captum_groupcam")
assert (files("captum_groupcam") / "py.typed").is_file()
for name in ("benchmarks", "tests", "docs"):
    assert find_spec(name) is None, f"The wheel brings a module that is called {name}."

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
).eval()
images = torch.rand(2, 3, 32, 32)
maps = captum_groupcam.GroupCAM(model, model[1]).attribute(images, target=3, relu_attributions=False)
assert maps.shape == (2, 1, 32, 32)
assert maps.isfinite().all()
assert maps.abs().amax() > 0
packages = ("captum_groupcam", "captum", "torch", "torchvision", "numpy", "torchmetrics")
print(*(f"{name} {version(name)}" for name in packages), sep=", ")
PYTHON
if user/bin/captum-groupcam --help > needs.log 2>&1; then
    echo "The command line runs without its extra: is something installed that should not be?" >&2
    exit 1
fi
grep -F "captum_groupcam[cli]" needs.log

step "The command line: [cli]"
user/bin/python -m pip install --quiet "$wheel[cli]" "$@"
user/bin/python -m pip check
user/bin/captum-groupcam --help > /dev/null
user/bin/python -I -c "
import numpy as np
from PIL import Image
pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
Image.fromarray(pixels).save('noise.png')"
user/bin/captum-groupcam explain noise.png --out maps/
ls maps

step "All passed. What was tried lies in dist/:"
ls "$OLDPWD/dist"
