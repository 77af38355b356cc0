"""An app in the browser that asks a network which part of an image made it decide.

``captum-groupcam explore`` starts it, and so does :func:`serve`. Inside, ``_networks`` holds what
is asked, ``_questions`` computes the answers, ``_options`` finds what a method can be told,
``_figures`` draws, and writes the code that draws the same, ``_handlers`` says what a click does,
and ``_page`` what stands where.
"""

from captum_groupcam.apps.explorer._page import serve

__all__ = ["serve"]
