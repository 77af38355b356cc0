"""Judges the judges: how well do measures rank maps of known quality?"""
