"""An app in the browser that asks a network which part of an image made it decide.

``captum-groupcam explore`` starts it. Its pieces: :mod:`~captum_groupcam.explorer.questions`
computes, :mod:`~captum_groupcam.explorer.options` finds what a method can be told,
:mod:`~captum_groupcam.explorer.figures` writes the code that reproduces a picture, and
:mod:`~captum_groupcam.explorer.page` is the page.
"""
