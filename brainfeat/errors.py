"""The exceptions of brainfeat.

Every deliberate error is a `BrainfeatError`. Most are also the built-in exception that a caller
would expect: `ValueError`, as scikit-learn raises for a bad argument, or `OSError` for a file.
"""


class BrainfeatError(Exception):
    """Base class of every error that brainfeat raises deliberately."""


class TableError(BrainfeatError, ValueError):
    """A folder or CSV, or a label, split or group in it, cannot be used."""


class ImageReadError(BrainfeatError, OSError):
    """An image cannot be read.

    Attributes
    ----------
    path : str
        The image, as the caller named it.
    reason : str
        Why it cannot be read, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageReadError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class WeightsError(BrainfeatError, OSError):
    """The weights of a backbone are missing, damaged, or made for another architecture.

    Attributes
    ----------
    problem : str
        What is wrong.
    remedy : str
        What to do where any weights serve; empty where `problem` says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["WeightsError"], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class CacheError(BrainfeatError, ValueError):
    """A feature cache cannot be read, used or written."""


class CacheFormatError(CacheError):
    """A file is not a feature cache in a format that this version reads."""


class CacheCorruptError(CacheError):
    """A feature cache is truncated, or its content has changed since it was written."""


class SpecMismatchError(CacheError):
    """Features have another specification than is needed."""


class ParameterError(BrainfeatError, ValueError):
    """An argument or option is unknown, or its value is not allowed."""


class HeadError(BrainfeatError, ValueError):
    """A head or one of its parameters is unknown, or the head cannot be fitted."""


class BundleError(BrainfeatError, ValueError):
    """A fitted head cannot be saved, loaded or applied."""


class MissingDependencyError(BrainfeatError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
