"""Graphs of jobs on a cluster: as Slurm scripts, submitted once, looked at and ended. No array library."""
