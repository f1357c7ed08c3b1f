"""From the forms in which data lies about to the standard folder format."""
