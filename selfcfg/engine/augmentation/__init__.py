"""What patches are augmented with, and the two executors that carry it out."""
