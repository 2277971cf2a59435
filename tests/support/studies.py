"""A fitted head, a cache and their evaluation for tests of reports, without image or backbone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import orient_signatures
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.heads.record import History
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.training.fitting import fit_head
from support.caches import draw_signatures

SCRIPT = "<script>alert(1)</script>"
NAMES = ("glioma", SCRIPT, "no|tumour `$x_1$`", "脑膜瘤")


def draw_study(
    make_cache: Callable[..., Path],
    *,
    class_names=NAMES,
    rows=400,
    copies=20,
    seed=0,
    cv=None,
    signature=None,
) -> SimpleNamespace:
    """Fit a head on clouds of vectors; some test images are copies of training images."""
    rng = np.random.default_rng(seed)
    k = len(class_names)
    y = np.arange(rows) % k
    X = 0.5 * rng.standard_normal((k, 24))[y] + rng.standard_normal((rows, 24))
    split = np.where(np.arange(rows) < 0.6 * rows, "train", "test")
    # The last test images are copies of the first training images, and half of them exact ones.
    contents = [f"content-{row}" for row in range(rows)]
    signature = draw_signatures(rows) if signature is None else signature.copy()
    for place in range(copies):
        row = rows - 1 - place
        source = next(other for other in range(place, rows) if y[other] == y[row])
        signature[row] = orient_signatures(signature[source], 1)
        X[row] = X[source] + 1e-3 * rng.standard_normal(24)
        if place % 2:
            X[row], contents[row] = X[source], contents[source]
            signature[row] = signature[source]
    columns = {"splits": split.tolist(), "contents": contents, "signature": signature}
    path = make_cache(X, y, class_names=class_names, **columns)
    cache = FeatureCache.open(path)
    bundle = fit_head(cache, head="lda", cv=cv)
    return SimpleNamespace(
        path=path,
        cache=cache,
        bundle=bundle,
        evaluation=evaluate(bundle, cache),
        audit=audit_duplicates(cache),
    )


def with_history(study: SimpleNamespace) -> SimpleNamespace:
    """Add to the head the training curves of one that is fitted in epochs."""
    history = History(
        loss=(1.2, 0.8, 0.5, 0.4),
        accuracy=(0.5, 0.7, 0.8, 0.85),
        val_loss=(1.0, 0.7, 0.6, 0.65),
        val_accuracy=(0.6, 0.7, 0.75, 0.74),
    )
    study.bundle = replace(study.bundle, training=replace(study.bundle.training, history=history))
    return study
