"""Recipes on a dataset: graphs of jobs, and running them."""
