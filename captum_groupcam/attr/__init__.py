"""The attribution methods, each in a file of its own."""
