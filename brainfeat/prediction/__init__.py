"""From images to predictions: with heat maps, or with base and head exported as one model."""
