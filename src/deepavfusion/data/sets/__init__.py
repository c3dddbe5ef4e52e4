"""Public data sets: readers of their official annotation files, and manifests made from them.

One file per data set reads its annotations; `catalogue` is the table of them, `clip_index` finds the listed clips in
any folder layout, and `manifest` combines the two. Class names come from the annotation file or from the lists in
`classes`, never from a folder. Nothing here imports torch.
"""
