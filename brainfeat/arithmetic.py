"""Floating-point errors are NumPy's defaults in every computation, whatever the session sets."""

import numpy as np

# Decorates the functions that a session calls. `np.seterr(all="raise")` there would make an error
# of every underflow, which is harmless here: a probability of 1e-320 may become 0.
default_errors = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
