"""The masking engine."""

from captum_groupcam.masking.network import Shared

__all__ = ["Shared"]
