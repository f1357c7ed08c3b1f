"""From the files of cases to batches of patches."""
