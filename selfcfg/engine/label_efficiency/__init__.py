"""What pretraining is worth with few labels: a benchmark."""
