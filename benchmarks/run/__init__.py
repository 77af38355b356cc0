"""A run: methods x measures over samples, resumable, in one process or many.

What can be compared is :data:`~captum_groupcam.methods.METHODS`; controls and what is on trial join
it here.
"""

from .. import controls, research

__all__ = ["controls", "research"]
