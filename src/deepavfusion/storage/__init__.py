"""Models on disk: run folders' models, bundles, published weights, model cards, where an encoder starts from."""
