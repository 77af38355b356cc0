# Every target sets up what it needs in .venv, once for each state of pyproject.toml.

PYTHON ?= python3
OUT := out

VENV := .venv
READY := $(VENV)/.ready

# captum 0.8 has Insights and pins numpy < 2: an environment of its own, which holds what differs
# and takes the rest (torch, gigabytes) from .venv behind it.
VENV08 := .venv-captum08
READY08 := $(VENV08)/.ready
# What of the suite runs there: what calls Captum, or is called by it. Benchmark, command line and
# explorer, and what finds and loads networks, are tried with the current captum.
TESTS08 := tests captum_groupcam $(addprefix --ignore=tests/, benchmarks apps analysis models \
	networks test_own_networks.py test_layer_table.py test_readme.py test_tutorial.py)

# One thread for each worker, so that they do not compete for the cores. Tests of one group share a
# server, hence a worker.
pytest = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadgroup

# quantus needs opencv-python, grad-cam its headless twin. Both install the module cv2, and that of
# the headless one has to stay: it does without libGL, which a server does not have.
headless_cv2 = $(1)/bin/python -m pip install --quiet --force-reinstall --no-deps \
	"$$($(1)/bin/python -m pip freeze | grep '^opencv-python-headless==')"

# What takes less than a quarter of an hour on two cores: a coarser protocol, fewer masks of RISE.
BENCH := --limit 6 --methods "group_cam group_cam_gradient_free group_cam_consensus grad_cam \
	grad_cam_plus_plus cam score_cam rise:n_masks=500 xrai guided_backprop guided_grad_cam \
	integrated_gradients smooth_grad input_x_gradient occlusion random centre edges" \
	--measures "DeletionInsertion.official PointingGame PointingGame.0px \
	quantus.RelevanceRankAccuracy quantus.Sparseness"

site_packages = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-captum08 test-oldest release lint docs bench attack clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## the virtual environment, .venv

demo: $(READY) ## explain bundled pictures, write a grid of them and print its path
	$(VENV)/bin/python -m captum_groupcam demo --out $(OUT)/demo.png

test: $(READY) ## run all tests, and those of the library with captum 0.8
	$(call pytest,$(VENV))
	@$(MAKE) --no-print-directory test-captum08

test-oldest: ## run the library's tests with the oldest packages that pyproject.toml admits
	PYTHON=$(PYTHON) scripts/check_lower_bounds.sh

release: ## build wheel and sdist, and try them where the checkout is not
	PYTHON=$(PYTHON) scripts/check_release.sh

lint: $(READY) ## style, docstrings, types, phrases, and who imports what
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/check_phrases.py

# One thread, as for tests: two wait for each other where something else runs beside.
docs: $(READY) ## build the documentation and run its examples
	OMP_NUM_THREADS=1 $(VENV)/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	OMP_NUM_THREADS=1 $(VENV)/bin/sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest
	@echo docs/_build/html/index.html

bench: $(READY) ## compare all methods on bundled pictures and print where the page is
	$(VENV)/bin/python -m benchmarks compare --out $(OUT)/bench $(BENCH)

attack: $(READY) ## do what must do no harm, and count what comes of it
	$(VENV)/bin/python -m benchmarks attack

clean: ## remove what make has made
	rm -rf $(VENV) $(VENV08) $(OUT) docs/_build build dist

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev,docs]"
	$(call headless_cv2,$(VENV))
	touch $@

$(READY08): $(READY)
	$(PYTHON) -m venv $(VENV08)
	echo "import site; site.addsitedir('$(call site_packages,$(VENV))')" \
		> "$(call site_packages,$(VENV08))/behind.pth"
	$(VENV08)/bin/python -m pip install --quiet --editable ".[dev,insights]"
	$(call headless_cv2,$(VENV08))
	touch $@

ifeq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info < (3, 13))'),True)
test-captum08: $(READY08) ## run the tests of the library with captum 0.8
	$(call pytest,$(VENV08)) $(TESTS08)
else
test-captum08:
	@echo "Not tested with captum 0.8: it needs numpy < 2, which Python 3.13 and newer do not have."
endif
