#!/usr/bin/env bash
# skops 0.16.0, scikit-learn 1.9.1, pytest 9.2.0, NumPy 2.4.6, CPython 3.11: `import skops.io` imports
# every module of scikit-learn, its tests' helpers and, where it is installed, pytest.
#
# Behaviour: the list of trusted types is made at import by `sklearn.utils.all_estimators()`, which walks
# all of scikit-learn's packages. A program that saves one SVC, or only reads an archive of one, then has
# some 440 modules of scikit-learn instead of the hundred that SVC needs, and on machines of developers the
# test runner too. Where start-up counts, it is a few tenths of a second of every command.
# What helps: to import skops where an archive is written or read, and nowhere else.
#
# Output seen:
#   sklearn.svm alone: pytest False, more than 300 modules of scikit-learn False
#   skops.io: pytest True, more than 300 modules of scikit-learn True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet skops==0.16.0 scikit-learn==1.9.1 numpy==2.4.6 pytest==9.2.0
cat > "$work/check.py" << 'PY'
import importlib
import sys

for shown, name in (("sklearn.svm alone", "sklearn.svm"), ("skops.io", "skops.io")):
    importlib.import_module(name)
    modules = sum(loaded.startswith("sklearn.") for loaded in sys.modules)
    print(
        f"{shown}: pytest {'pytest' in sys.modules}, "
        f"more than 300 modules of scikit-learn {modules > 300}"
    )
PY
cat > "$work/expected" << 'TXT'
sklearn.svm alone: pytest False, more than 300 modules of scikit-learn False
skops.io: pytest True, more than 300 modules of scikit-learn True
TXT
cd "$work"
venv/bin/python check.py | tee seen
diff expected seen
