"""What cross-validation tells of new cases: a temperature of the probabilities, and a score of likely quality."""
