"""DETR from scratch: pages in Chinese and English, a model on one page, and their figures."""
