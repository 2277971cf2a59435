"""The exception tree: every error that brainfeat raises on purpose."""


class BrainfeatError(Exception):
    """Base of every error that brainfeat raises on purpose."""


class TableError(BrainfeatError, ValueError):
    """A folder, a CSV, a label, a split or a group is not usable."""


class ImageReadError(BrainfeatError, OSError):
    """One image could not be read.

    Attributes
    ----------
    path : str
        The image, as it was named by the caller.
    reason : str
        Why it could not be read, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageReadError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class WeightsError(BrainfeatError, OSError):
    """Weights of a backbone are missing, damaged, or of another architecture."""


class CacheError(BrainfeatError, ValueError):
    """A feature cache cannot be used or written."""


class CacheFormatError(CacheError):
    """A file is not a feature cache of a format that this version reads."""


class CacheCorruptError(CacheError):
    """A feature cache is truncated or its content is not what was written."""


class SpecMismatchError(CacheError):
    """Features of one specification were offered where another is needed."""


class ParameterError(BrainfeatError, ValueError):
    """An option is unknown or out of range."""


class HeadError(BrainfeatError, ValueError):
    """A head, or one of its parameters, is not known or cannot be fitted."""


class BundleError(BrainfeatError, ValueError):
    """A fitted head cannot be loaded, saved or applied."""


class LeakageError(BrainfeatError, ValueError):
    """A split leaks and the user asked for strictness."""


class MissingDependencyError(BrainfeatError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
