"""YOLO's formats: one text file of fractions per image, and a file with the names of the classes."""
