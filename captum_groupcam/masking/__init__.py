"""The masking engine."""
