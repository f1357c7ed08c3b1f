"""What is run on this machine elsewhere as the tasks of a cluster: command lines, order and what each takes."""
