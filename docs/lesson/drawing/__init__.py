"""The figures of the lesson, one file for each group of chapters, and their common look."""
