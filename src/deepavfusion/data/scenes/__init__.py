"""Clips with annotated sources, such as Bandstand's: annotations, masks, and one source at a time."""
