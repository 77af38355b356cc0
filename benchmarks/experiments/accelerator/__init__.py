"""The check of an accelerator: what the CPU cannot show, and how fast it is."""
