"""Code that several test modules share: test data, backbones without a network, and faults."""
