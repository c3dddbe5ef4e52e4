"""Search in one's own archive: `index` and `search`. Windows of recordings as vectors, in a store on disk."""
