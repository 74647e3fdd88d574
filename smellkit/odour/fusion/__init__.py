"""Smell, picture and text into one mixture; any of them may be missing."""
