"""Sphinx configuration. Built with warnings as errors: ``make docs``."""

import doctest
import re
from collections import namedtuple
from html import escape
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

project = "captum_groupcam"
author = copyright = "the captum_groupcam contributors"  # noqa: A001
version = release = installed_version(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**/_*.md", "tutorial.ipynb"]

html_theme = "furo"
html_title = f"captum_groupcam {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
smartquotes_action = "qe"  # quotes and ellipses; two dashes begin an option
html_math_renderer = "mathml"  # what browsers draw themselves, so that pages need no network

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False

# Pages with code cells are run for every build, so that their numbers and pictures are those of the
# code. A cell that raises, or writes to stderr (as a warning does), fails the build.
nb_execution_mode = "auto"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
nb_merge_streams = True
nb_ipywidgets_js = {}  # no page has a widget, whose programs would come from a CDN
nb_code_prompt_show = "Show the code of the picture"
nb_code_prompt_hide = "Hide the code of the picture"

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

#: The type of what a named tuple has for each of its fields.
FIELD = type(namedtuple("Pair", "field").field)

# Examples in docstrings are run by pytest; the builder runs those of the pages.
doctest_test_doctest_blocks = ""
# The same flags as in pytest's configuration.
doctest_default_flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# What the pages' examples start from.
doctest_global_setup = (Path(__file__).parent / "how-to" / "example.py").read_text("utf-8")


def draw_math(self, node):
    """Writes an equation as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    drawn = convert(node.astext(), display=display)
    # For those who read or copy the source.
    drawn = drawn.replace("<math ", f'<math alttext="{escape(node.astext())}" ', 1)
    self.body.append(f'<div class="math">{drawn}</div>' if display == "block" else drawn)
    raise nodes.SkipNode


def name_public_bases(_app, _name, cls, _options, bases):
    """Names what stands behind a base of this package that is private: a class of Captum."""

    def is_private(base):
        return base.__module__.startswith("captum_groupcam.") and (
            "._" in base.__module__ or base.__name__.startswith("_")
        )

    if any(map(is_private, bases)):
        bases[:] = [base for base in cls.__mro__[1:] if not is_private(base)][:1]


def name_defaults(_app, _what, _name, _obj, _options, signature, returns):
    """Writes functions and classes among the defaults by their names, and rounds numbers."""
    # `<function f>` is no Python, and Sphinx would not lay the signature out.
    if signature is not None:
        signature = re.sub(r"<(?:function|class) '?(?:[\w.]*\.)?(\w+)'?>", r"\1", signature)
        signature = re.sub(r"\d\.\d{6,}", lambda digits: f"{float(digits[0]):.4f}", signature)
        signature = signature.replace("<factory>", "...").replace("<lambda>", "...")
    return signature, returns


def keep_colons(_app, what, _name, _obj, _options, lines):
    """Keeps what stands before a colon in the description of a constant or a property."""
    # Napoleon takes it for a type and moves it, but where the line ends there.
    if what in ("attribute", "data", "property") and lines and ": " in lines[0]:
        lines[:1] = re.split(r"(?<=:) ", lines[0], maxsplit=1)


def mark_strings(_app, _what, _name, _obj, _options, lines):
    """Sets the strings among the defaults as code, where their quotes stay straight."""
    lines[:] = re.sub(r'(Default:\s+)("[^"\n]*")', r"\1``\2``", "\n".join(lines)).split("\n")


def skip_fields(_app, _what, _name, obj, skip, _options):
    """Leaves out the fields of named tuples, which the class describes."""
    return True if isinstance(obj, FIELD) else skip


def write_dashes(_app, doctree):
    """Writes a dash after a parameter's type."""
    # Sphinx and Napoleon write two hyphens there, for smart quotes to make a dash of.
    for text in list(doctree.findall(nodes.Text)):
        if text.startswith(" -- "):
            text.parent.replace(text, nodes.Text(" \N{EN DASH} " + text[4:]))


def lay_tables_out(_app, doctree):
    """Says which cells of a table need room, keeps intervals whole, and drops empty heads."""
    for row in doctree.findall(nodes.row):
        if len(row[-1].astext()) > 30:
            row[-1]["classes"].append("prose")
        for text in [one for cell in row for par in cell for one in par if type(one) is nodes.Text]:
            within = r"\[[-+]?[\d.]+, [-+]?[\d.]+\](?: (?=\*))?"
            whole = re.sub(within, lambda one: one[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
            text.parent.replace(text, nodes.Text(whole))
    for head in list(doctree.findall(nodes.thead)):
        if not head.astext().strip():
            head.parent.remove(head)


def mark_code(_app, _pagename, _templatename, context, _doctree):
    """Marks in code where a line may end, and the words that the style sheet keeps whole."""

    def mark(words):
        kind = "pre option" if words[1].startswith("-") else "pre"
        if len(words[1]) < 20:
            return f'<span class="{kind}">{words[1]}'
        ends = r"[/:,]|\.(?!\d)" if "=" in words[1] else r"[/:_]|\.(?!\d)"
        parted = re.sub(rf"({ends})(?=\w)", r"\1<wbr>", words[1])
        return f'<span class="{kind}">{parted}'

    if "body" in context:
        context["body"] = re.sub(r'<span class="pre">([^<]+)', mark, context["body"])


def setup(app):
    """Draws equations; where examples are run, which needs no pictures, leaves the cells alone."""
    app.connect("autodoc-process-bases", name_public_bases)
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # Napoleon does at 500
    app.connect("autodoc-process-docstring", mark_strings)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("doctree-read", write_dashes)
    app.connect("doctree-read", lay_tables_out)
    app.connect("html-page-context", mark_code)
    app.add_html_math_renderer("mathml", (draw_math, None), (draw_math, None))

    def execute_for_pages(app):
        if app.builder.name == "doctest":
            app.config.nb_execution_mode = "off"

    app.connect("builder-inited", execute_for_pages, priority=400)  # MyST-NB reads it at 500
