"""Features: writing them to files, and nearest neighbours among them."""
