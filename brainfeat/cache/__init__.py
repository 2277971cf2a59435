"""The feature cache: the HDF5 file between the two stages, and how it is kept intact."""
