"""An app in the browser that asks a network which part of an image made it decide.

``captum-groupcam explore`` starts it, and so does :func:`explore`. Inside, ``_networks`` holds what
is asked, ``_questions`` computes the answers, ``_options`` finds what a method can be told,
``_figures`` draws, and ``_program`` writes the program that draws the same. ``_handlers`` says what
a click does, and ``_page`` says what stands where. ``_visitors`` knows who has the page open,
``_turns`` whose turn it is, ``_guard`` what may be asked of ``_server``, and ``_files`` where
photographs lie meanwhile.
"""

from captum_groupcam.apps.explorer._server import explore

__all__ = ["explore"]
