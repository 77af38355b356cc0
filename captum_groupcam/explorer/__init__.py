"""An app in the browser that asks a network which part of an image made it decide.

``captum-groupcam explore`` starts it. :mod:`~captum_groupcam.explorer.networks` holds what is
asked, :mod:`~captum_groupcam.explorer.questions` computes the answers,
:mod:`~captum_groupcam.explorer.options` finds what a method can be told,
:mod:`~captum_groupcam.explorer.figures` draws, and writes the code that draws the same,
:mod:`~captum_groupcam.explorer.handlers` says what a click does, and
:mod:`~captum_groupcam.explorer.page` what stands where.
"""
