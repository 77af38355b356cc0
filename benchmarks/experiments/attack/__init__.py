"""Attacks: what must do no harm is done on purpose, and what comes of it is counted."""
