"""Scorers that ask no endpoint, and a model of one's own machine."""
