"""Auxiliary tasks, one a file: each teaches a segmentation network's parts something by a head of its own."""
