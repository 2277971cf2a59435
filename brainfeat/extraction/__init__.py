"""STAGE ONE: images pass once through a frozen convolutional base, and features are cached."""
