"""Runs beside each other: what is read of them, the tables, the picture and the page."""
