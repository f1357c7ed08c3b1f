"""Choosing the model of a dataset from what its experiments predicted for cases that they did not train on."""
