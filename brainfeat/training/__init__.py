"""STAGE TWO: a cache and the name of a head become a calibrated, evaluated head bundle."""
