#!/usr/bin/env bash
# scikit-learn 1.9.1, NumPy 2.4.6, CPython 3.11: StackingClassifier passes no groups to its splitter.
#
# Behaviour: a stack of patients' images needs out-of-fold predictions by folds that divide no patient.
# StackingClassifier takes cv=GroupKFold(), but has no way to give it the groups: without metadata routing,
# fit(X, y, groups=...) is a ValueError, as only sample_weight is allowed; with it, no splitter is in the
# router of the stack, so that groups that nobody requested are a TypeError, and set_split_request(groups=True)
# changes nothing. The default cv=5 divides groups without a warning.
# What helps: folds that were made beforehand, as a list of pairs of rows: cv=list(GroupKFold().split(X, y, g)).
#
# Output seen:
#   without routing: ValueError
#   with routing: TypeError
#   cv=5: 50 of 50 groups divided
#   list of pairs: 0 of 50 groups divided
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import numpy as np
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

rng = np.random.default_rng(0)
groups = np.arange(500) % 50
y = rng.permutation(np.arange(500) % 2)
X = np.column_stack([groups, rng.normal(size=500)])
divided = set()


class Watch(ClassifierMixin, BaseEstimator):
    """Notes which groups it is asked about that it was fitted on, unless fitted on all."""

    def fit(self, X, y):
        self.classes_, self.seen_ = np.unique(y), set(X[:, 0]) if len(X) < 500 else set()
        return self

    def predict_proba(self, X):
        divided.update(self.seen_ & set(X[:, 0]))
        return np.full((len(X), 2), 0.5)

    def predict(self, X):
        return np.zeros(len(X), int)


def stack(cv):
    return StackingClassifier([("a", Watch())], LogisticRegression(), cv=cv)


def attempt(cv):
    try:
        stack(cv).fit(X, y, groups=groups)
    except (TypeError, ValueError) as error:
        return type(error).__name__
    return "accepted"


print("without routing:", attempt(GroupKFold()))
with sklearn.config_context(enable_metadata_routing=True):
    print("with routing:", attempt(GroupKFold().set_split_request(groups=True)))
for name, cv in (("cv=5", 5), ("list of pairs", list(GroupKFold().split(X, y, groups)))):
    divided.clear()
    stack(cv).fit(X, y)
    print(f"{name}: {len(divided)} of 50 groups divided")
PY
cat > "$work/expected" << 'TXT'
without routing: ValueError
with routing: TypeError
cv=5: 50 of 50 groups divided
list of pairs: 0 of 50 groups divided
TXT
cd "$work"
venv/bin/python check.py | tee seen
diff expected seen
