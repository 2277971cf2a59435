"""Brain MRI tumour classifiers in two stages: features once, heads in seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainfeat.bundle import HeadBundle
    from brainfeat.cache import FeatureCache
    from brainfeat.comparison import compare
    from brainfeat.errors import BrainfeatError
    from brainfeat.evaluation import evaluate
    from brainfeat.extraction import extract
    from brainfeat.heads.dense import DenseHead
    from brainfeat.leakage import audit
    from brainfeat.prediction import Predictor, predict
    from brainfeat.readers.volumes import SlicePolicy
    from brainfeat.slicing import write_slices
    from brainfeat.table import read_table, write_table
    from brainfeat.training import fit_head

__version__ = "0.1.0"

_HOMES = {
    "BrainfeatError": "errors",
    "DenseHead": "heads.dense",
    "FeatureCache": "cache",
    "HeadBundle": "bundle",
    "Predictor": "prediction",
    "SlicePolicy": "readers.volumes",
    "audit": "leakage",
    "compare": "comparison",
    "evaluate": "evaluation",
    "extract": "extraction",
    "fit_head": "training",
    "predict": "prediction",
    "read_table": "table",
    "write_slices": "slicing",
    "write_table": "table",
}

__all__ = [
    "BrainfeatError",
    "DenseHead",
    "FeatureCache",
    "HeadBundle",
    "Predictor",
    "SlicePolicy",
    "audit",
    "compare",
    "evaluate",
    "extract",
    "fit_head",
    "predict",
    "read_table",
    "write_slices",
    "write_table",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'brainfeat' has no attribute {name!r}")
    return getattr(import_module(f"brainfeat.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
