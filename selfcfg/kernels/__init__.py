"""Pure functions on arrays and tensors; nothing here knows of plans, cases or files."""
