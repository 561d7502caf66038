"""Drawn clips and pictures whose objects are known, and how well the shipped detector's tracks and tiles fit them."""
