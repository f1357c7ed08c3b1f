"""The training loop, and what it leaves in the folder of a run."""
