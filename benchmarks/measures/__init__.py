"""The measures of the comparison, our own and those of Quantus."""
