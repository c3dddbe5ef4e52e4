"""Clips whose sources are annotated, as a Bandstand world's are: what is where, what sounds, one source alone."""
