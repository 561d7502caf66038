"""Recipes: tables of settings that fit the data (`--recipe`)."""
