"""Annotation files in, one form in memory out."""
