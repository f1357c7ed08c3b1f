"""The sections of the page: each is a function that makes one of the facts, or nothing where they do not tell it."""
