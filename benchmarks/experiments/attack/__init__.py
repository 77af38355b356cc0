"""Attacks: misuse and interruptions that must do no damage, and a count of the damage."""
