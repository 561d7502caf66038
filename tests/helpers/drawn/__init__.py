"""Drawn clips and scenes in which the shipped detector finds the shapes."""
