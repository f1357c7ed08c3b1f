"""What may be wrong with a dataset, found before anything is trained on it."""
