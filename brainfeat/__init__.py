"""Brain MRI tumour classifiers in two stages: features once, heads in seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.joining import join_caches
    from brainfeat.errors import BrainfeatError
    from brainfeat.evaluation.comparison import compare
    from brainfeat.evaluation.evaluator import evaluate
    from brainfeat.extraction.extractor import extract
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.heads.dense import DenseHead
    from brainfeat.leakage.auditing import audit
    from brainfeat.leakage.cross_audit import audit_between
    from brainfeat.leakage.linking import link_caches
    from brainfeat.prediction.predictor import Predictor, predict
    from brainfeat.prediction.stress import stress
    from brainfeat.readers.volumes import SlicePolicy
    from brainfeat.tables.slicing import write_slices
    from brainfeat.tables.table import read_table, write_table
    from brainfeat.tables.volume_table import read_volumes
    from brainfeat.training.ablation_table import ablate
    from brainfeat.training.fitting import fit_head
    from brainfeat.training.label_doubts import find_label_doubts
    from brainfeat.training.learning_curve import learning_curve

__version__ = "0.1.0"

_HOMES = {
    "BrainfeatError": "errors",
    "DenseHead": "heads.dense",
    "FeatureCache": "cache.cache",
    "HeadBundle": "heads.bundle",
    "Predictor": "prediction.predictor",
    "SlicePolicy": "readers.volumes",
    "ablate": "training.ablation_table",
    "audit": "leakage.auditing",
    "audit_between": "leakage.cross_audit",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluator",
    "extract": "extraction.extractor",
    "find_label_doubts": "training.label_doubts",
    "fit_head": "training.fitting",
    "join_caches": "cache.joining",
    "learning_curve": "training.learning_curve",
    "link_caches": "leakage.linking",
    "predict": "prediction.predictor",
    "read_table": "tables.table",
    "read_volumes": "tables.volume_table",
    "stress": "prediction.stress",
    "write_slices": "tables.slicing",
    "write_table": "tables.table",
}

__all__ = [
    "BrainfeatError",
    "DenseHead",
    "FeatureCache",
    "HeadBundle",
    "Predictor",
    "SlicePolicy",
    "ablate",
    "audit",
    "audit_between",
    "compare",
    "evaluate",
    "extract",
    "find_label_doubts",
    "fit_head",
    "join_caches",
    "learning_curve",
    "link_caches",
    "predict",
    "read_table",
    "read_volumes",
    "stress",
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
