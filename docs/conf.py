"""Sphinx configuration. Built with warnings as errors: ``make docs``."""

import doctest
from importlib.metadata import version as installed_version

project = "captum_groupcam"
author = copyright = "the captum_groupcam contributors"  # noqa: A001
version = release = installed_version(project)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"captum_groupcam {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

# Examples in docstrings are run by pytest; the builder runs those of the pages.
doctest_test_doctest_blocks = ""
# The same flags as in pytest's configuration.
doctest_default_flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# What the pages' examples start from: a small network, and two images of noise.
doctest_global_setup = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
).eval()
layer = model[4]
images = torch.rand(2, 3, 32, 32)
"""
