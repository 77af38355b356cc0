"""Gradio, which only the explorer needs: None where it is not installed."""

from __future__ import annotations

try:
    import gradio as gr
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    gr = None  # type: ignore[assignment]

__all__ = ["gr", "needs_gradio"]


def needs_gradio() -> None:
    """Says what to install.

    Raises:
        ModuleNotFoundError: If gradio is missing.
    """
    if gr is None:
        raise ModuleNotFoundError(
            "The explorer needs the package gradio: pip install 'captum_groupcam[explorer]'",
            name="gradio",
        )
