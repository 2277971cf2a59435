"""Which images there are: a folder or a CSV becomes a table of paths, labels, splits, groups."""
