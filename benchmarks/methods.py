"""The methods that can be compared: the package's, and ideas that are on trial."""

from benchmarks.research import RESEARCH
from captum_groupcam.methods import METHODS as COMPARED
from captum_groupcam.methods import Factory, Method, Subject, Target

__all__ = ["COMPARED", "METHODS", "Factory", "Method", "Subject", "Target"]

#: All that can be compared. Without a choice it is the package's methods, :data:`COMPARED`.
METHODS: dict[str, Factory] = COMPARED | RESEARCH
