"""Features written to files, and what is read from them."""
