"""Predictions against references."""
