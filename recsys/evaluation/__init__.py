"""Judging what was recommended: accuracy and beyond, where each stage loses its targets, how sure the figures are."""
