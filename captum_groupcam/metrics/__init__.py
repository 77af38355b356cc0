"""Measures of finished maps."""
