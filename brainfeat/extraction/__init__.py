"""STAGE ONE: images pass once through a frozen convolutional base; their features are cached."""
