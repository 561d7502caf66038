"""Inference: images in, detections, masks and panoptic maps out."""
