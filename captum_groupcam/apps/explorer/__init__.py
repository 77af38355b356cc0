"""An app in the browser that asks a network which part of an image made it decide.

``captum-groupcam explore`` starts it. :mod:`~captum_groupcam.apps.explorer.networks` holds what is
asked, :mod:`~captum_groupcam.apps.explorer.questions` computes the answers,
:mod:`~captum_groupcam.apps.explorer.options` finds what a method can be told,
:mod:`~captum_groupcam.apps.explorer.figures` draws, and writes the code that draws the same,
:mod:`~captum_groupcam.apps.explorer.handlers` says what a click does, and
:mod:`~captum_groupcam.apps.explorer.page` what stands where.
"""
