"""THE WALL: the HDF5 file of features between the two stages, and what keeps it whole."""
