"""The networks that decide by planted evidence: how they are trained, and the proof."""
