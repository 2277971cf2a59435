"""What a head is worth: metrics, intervals, comparisons, and what it abstains from."""
