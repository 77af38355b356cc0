"""A run: methods x measures over samples, resumable, in one process or many.

What can be compared is :data:`~captum_groupcam.methods.METHODS`; controls, peers and what is on
trial join it here.
"""

from .. import controls, known, peers, research

__all__ = ["controls", "known", "peers", "research"]
