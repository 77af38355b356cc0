"""The methods that are compared: those of the package, which the command line knows too."""

from captum_groupcam.methods import METHODS, Factory, Method, Subject, Target

__all__ = ["METHODS", "Factory", "Method", "Subject", "Target"]
