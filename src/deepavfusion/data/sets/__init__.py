"""The field's data sets: their official annotation files read into typed rows, and manifests made of them.

One file per data set reads its annotations and nothing else; `catalogue` is the table of them, `clip_index` finds the
clips a list names in whatever folder layout they lie, and `manifest` puts the two together. Class names come from the
annotation file or from the lists in `classes`, never from a folder. Nothing here imports torch.
"""
