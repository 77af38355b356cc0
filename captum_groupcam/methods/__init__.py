"""The registry: every method, declared once, with one interface."""

from captum_groupcam.methods._method import Explain, Kind, Method
from captum_groupcam.methods._registry import (
    METHOD_SETS,
    METHODS,
    find_method,
    load_method,
    offered_methods,
)
from captum_groupcam.methods._spec import MethodSpec

__all__ = ["METHODS", "METHOD_SETS", "Explain", "Kind", "Method", "MethodSpec"]
__all__ += ["find_method", "load_method", "offered_methods"]
