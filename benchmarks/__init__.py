"""Compares saliency methods."""
