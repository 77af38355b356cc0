"""Maps as matplotlib figures: over images, beside each other, and the curves that judge them.

Overlays are drawn by Captum's own ``visualize_image_attr``. The figures do not go through pyplot:
nothing is shown, and nothing has to be closed.
"""

from captum_groupcam.visualization._curves import LINE_COLORS, curves, draw_curve
from captum_groupcam.visualization._dimensions import signal_plot, volume_slices
from captum_groupcam.visualization._figures import (
    POSITIVE_COLORS,
    SIGNED_COLORS,
    is_own_picture,
    save_figure,
)
from captum_groupcam.visualization._overlays import (
    draw_overlay,
    group_panels,
    method_grid,
    method_sheet,
    overlay,
    overlay_pixels,
)

__all__ = [
    "LINE_COLORS",
    "POSITIVE_COLORS",
    "SIGNED_COLORS",
    "curves",
    "draw_curve",
    "draw_overlay",
    "group_panels",
    "is_own_picture",
    "method_grid",
    "method_sheet",
    "overlay",
    "overlay_pixels",
    "save_figure",
    "signal_plot",
    "volume_slices",
]
