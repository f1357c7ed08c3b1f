"""The report as one HTML file that needs nothing else: facts, sections, plots, slices, and the page they become."""
