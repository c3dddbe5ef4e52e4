"""Models on disk: model folders, bundles, published weights, model cards, and the encoder of `--from`."""
