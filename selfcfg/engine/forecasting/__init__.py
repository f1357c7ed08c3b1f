"""What plans take of a machine, and plans and trainings fitted to it."""
