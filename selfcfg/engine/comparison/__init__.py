"""Systems side by side on the same cases: what is read of each, and what may be concluded."""
