"""A run: methods x measures over samples, resumable, in one process or many."""
