"""The lesson as Jupyter notebooks: `python -m tools.notebooks OUT`."""
