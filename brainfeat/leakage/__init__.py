"""Find duplicates and groups across splits, and make splits that divide none."""
