"""Trained models on whole images, and what is written of them."""
