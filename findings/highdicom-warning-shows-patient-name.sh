#!/usr/bin/env bash
# highdicom 0.28.2, pydicom 3.0.2, NumPy 2.4.6, CPython 3.11: making an object for a patient whose name
# has no caret prints that name on stderr.
#
# Behaviour: the base class of all objects checks the name that it is given, and where it has no caret,
# such as "Madonna", it gives a UserWarning that quotes the whole name. A family name alone is valid
# (PS3.5, 6.2), as the documentation of the check says itself, and common for subjects of research and
# for animals. Python shows the warning by default, so that the name gets into the logs of a batch job
# or of a container, from a program that only copies the patient of an image; raising the level of the
# logger "highdicom" does not help. With a caret nothing is printed. What helps: to ignore warnings
# while objects are made (`warnings.catch_warnings`).
#
# Output seen (whether the name is on stderr; with the logger's level raised; with warnings ignored):
#   Madonna: shown
#   Madonna^: not shown
#   Doe^Jane: not shown
#   Madonna, logger at CRITICAL: shown
#   Madonna, warnings ignored: not shown
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import logging
import sys

import highdicom

name = sys.argv[1]
logging.getLogger("highdicom").setLevel(sys.argv[2])
made = highdicom.SOPClass(
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.4",
    series_number=1,
    sop_instance_uid="1.2.3.4.5",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    instance_number=1,
    modality="SR",
    patient_name=name,
)
assert made.PatientName == name
PY
check() {
    local words=$1 name=$2 level=$3 told
    shift 3
    told=$("$work/venv/bin/python" "$@" "$work/check.py" "$name" "$level" 2>&1)
    case $told in *"$name"*) told="shown" ;; *) told="not shown" ;; esac
    echo "$name$words: $told"
}
{
    check "" Madonna WARNING
    check "" Madonna^ WARNING
    check "" Doe^Jane WARNING
    check ", logger at CRITICAL" Madonna CRITICAL
    check ", warnings ignored" Madonna WARNING -W ignore
} | tee "$work/seen"
cat > "$work/expected" << 'TXT'
Madonna: shown
Madonna^: not shown
Doe^Jane: not shown
Madonna, logger at CRITICAL: shown
Madonna, warnings ignored: not shown
TXT
diff "$work/expected" "$work/seen"
