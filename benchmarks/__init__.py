"""Scripts whose numbers the documentation cites; each is run by itself."""
