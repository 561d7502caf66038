"""`report.html` of a run: curves, errors, the worst images, classes, settings and data on one page."""
