"""What is varied, timed, drawn anew or fine-tuned."""
