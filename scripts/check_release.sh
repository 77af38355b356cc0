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
status=0
user/bin/captum-groupcam compare 2> needs.log || status=$?
if [ "$status" != 2 ] || [ "$(wc -l < needs.log)" != 1 ]; then
    echo "Without its extra, the benchmark should end in one line and status 2:" >&2
    cat needs.log >&2
    exit 1
fi
grep -F "captum_groupcam[bench]" needs.log

step "The benchmark, for a network of one's own: [bench]"
user/bin/python -m pip install --quiet "$wheel[bench]" "$@"
# The cv2 of opencv-python, which quantus needs, cannot do without libGL.
user/bin/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless
user/bin/python -m pip check
mkdir mypkg
touch mypkg/__init__.py
cat > mypkg/model.py <<'PYTHON'
from torch import nn


def build(num_classes=2):
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, num_classes))
PYTHON
user/bin/python - <<'PYTHON'
import shutil
from pathlib import Path

import torch
from mypkg.model import build

torch.manual_seed(0)
torch.save({"state_dict": build().state_dict()}, "best.pt")
Path("classes.txt").write_text("cat\ndog\n")
for place in ("photos", "pets/train/cat", "pets/train/dog", "pets/val/cat", "pets/val/dog"):
    Path(place).mkdir(parents=True)
    shutil.copy("noise.png", place)
PYTHON
network=(--model mypkg.model:build --weights best.pt --class-names classes.txt
    --preprocess imagenet --image-size 32 --accelerator cpu)
methods=(--methods "group_cam:n_groups=4 centre")
measures=(--measures "AverageDrop quantus.Sparseness")
photos=(--dataset images --root photos)
groupcam=user/bin/captum-groupcam
"$groupcam" compare "${network[@]}" "${photos[@]}" "${methods[@]}" "${measures[@]}"
"$groupcam" ablate "${network[@]}" "${photos[@]}" --studies weights --measures AverageDrop
"$groupcam" sanity "${network[@]}" "${photos[@]}" --methods "grad_cam edges"
"$groupcam" speed methods group_cam "${network[@]}" "${photos[@]}" "${methods[@]}" --rounds 1
"$groupcam" finetune "${network[@]}" --data pets --out out/finetune --epochs 1 --batch-size 1 \
    --arms "plain group_cam" --seeds 1 --n-groups 4
"$groupcam" compare --limit 1 "${methods[@]}" --out out/bundled
"$groupcam" report out/compare out/ablate out/bundled --out out/report
"$groupcam" memory --help > /dev/null # takes a minute; the tests run it
grep -q mypkg.model:build out/report/index.html
user/bin/python -I -c "
from importlib.util import find_spec
assert find_spec('benchmarks') is None, 'The wheel brings a module that is called benchmarks.'"

step "All passed. What was tried lies in dist/:"
ls "$OLDPWD/dist"
