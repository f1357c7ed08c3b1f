"""Recipes: strategies of several stages, as they are written, checked and expanded into candidates."""
