"""Copies and groups on two sides of a split: how they are found, and splits that cut none."""
