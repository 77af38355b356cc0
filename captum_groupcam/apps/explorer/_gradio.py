"""Gradio, which only the explorer needs: None where it cannot be imported."""

from __future__ import annotations

_why_not = ""
try:
    import gradio as gr
except ImportError as error:  # of gradio, or of what it needs
    gr = None  # type: ignore[assignment]
    _why_not = str(error)

__all__ = ["forget_session", "gr", "needs_gradio"]


def needs_gradio() -> None:
    """Says what to install.

    Raises:
        ModuleNotFoundError: If gradio cannot be imported.
    """
    if gr is None:
        raise ModuleNotFoundError(
            "The explorer needs the package gradio: pip install 'captum_groupcam[explorer]' "
            f"({_why_not})",
            name="gradio",
        )


def forget_session(app: gr.routes.App, session: str) -> None:
    """Drops what Gradio keeps of a page: 300 KB, for as many pages as ever were open."""
    app.state_holder.session_data.pop(session, None)
    app.state_holder.time_last_used.pop(session, None)
