"""Predictions in, numbers and reports out."""
