"""What the paper reports, measured again by one command."""
