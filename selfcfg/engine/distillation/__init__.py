"""What finished runs teach another one."""
