"""Classifiers that are ready to be explained: published ones by name, and one's own."""

from captum_groupcam.models._classifier import ImageClassifier
from captum_groupcam.models._load import load_model
from captum_groupcam.models._loaders import MODELS, Loader
from captum_groupcam.models._preprocessing import IMAGENET, Preprocessing

__all__ = ["IMAGENET", "MODELS", "ImageClassifier", "Loader", "Preprocessing", "load_model"]
