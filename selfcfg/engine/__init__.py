"""From measuring to scores: each step of the road is one module."""
