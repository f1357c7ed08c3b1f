"""From measuring to scores: each package is one step of the road."""
