"""A head answers for images: predictions, explanations, exported models."""
