"""Pages for people: the plan explained, and the report of an experiment with pictures."""
