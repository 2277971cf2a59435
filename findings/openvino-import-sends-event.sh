#!/usr/bin/env bash
# OpenVINO 2026.4.1, openvino-telemetry 2025.2.0, CPython 3.11, Linux: `import openvino` alone writes
# two files below the home folder, one with a lasting identifier, and sends an event to a web host.
#
# Behaviour: the package imports its converter, and that import sends an event. It makes the folder
# ~/intel with a random identifier, which later imports use again, and with a count of the imports,
# and starts a thread whose child process connects to the host. No model is loaded, nothing is
# converted, nobody is asked, and nothing is printed, with or without a network. OpenVINO's page about
# it says that data are collected by default, and names tools, not the import; the page of
# openvino-telemetry 2025.2.0 says that nothing is sent without a file of consent. Programs for
# medical images are often not allowed to contact others, nor tests to write below the home folder.
# What helps: None for "openvino_telemetry" in `sys.modules` while openvino is imported, with which
# `openvino.convert_model` is still there; a file ~/intel/openvino_telemetry that holds 0, written by
# hand before the first import; or CI=true in the environment.
#
# No connection is made here: the process has, in place of the functions that look hosts up and
# connect to them, ones that note the host and raise an error, and its home is a folder below the
# temporary one.
#
# Output seen:
#   first import hosts ['www.google-analytics.com'] files ['openvino_ga_cid', 'stats'] threads 2
#   second import hosts ['www.google-analytics.com'] files ['openvino_ga_cid', 'stats'] threads 2
#   same identifier True counts [1, 2]
#   without the module hosts [] files [] threads 1
#   file that holds 0 hosts [] files ['openvino_telemetry'] threads 1
#   CI=true hosts [] files [] threads 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 openvino-telemetry==2025.2.0 numpy==2.4.6
cat > "$work/import.py" << 'PY'
import os
import socket
import sys
import threading


def note(host, *_):
    with open(os.environ["HOSTS"], "a") as file:
        print(host, file=file)
    raise OSError("no connection is made")


def refuse(_, address):
    note(address)


socket.getaddrinfo = socket.gethostbyname = note
socket.socket.connect = socket.socket.connect_ex = refuse
if "without" in sys.argv:
    sys.modules["openvino_telemetry"] = None
import openvino  # noqa: E402

assert callable(openvino.convert_model)
print(threading.active_count())
PY
cat > "$work/check.py" << 'PY'
import json
import subprocess
import sys
from pathlib import Path


def check(words, folder, *arguments, **variables):
    """Import openvino in another process with its own home; give the files that it leaves there."""
    home, hosts = folder / "home", folder / "hosts"
    home.mkdir(parents=True, exist_ok=True)
    hosts.write_text("")
    done = subprocess.run(
        [sys.executable, "import.py", *arguments],
        env={"HOME": str(home), "HOSTS": str(hosts)} | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    files = {path.name: path.read_text() for path in home.rglob("*") if path.is_file()}
    assert all((home / "intel" / name).is_file() for name in files)
    found = hosts.read_text().split()
    print(words, "hosts", found, "files", sorted(files), "threads", done.stdout.strip())
    return files


here = Path.cwd()
first, second = (check(f"{nth} import", here / "plain") for nth in ("first", "second"))
same = first["openvino_ga_cid"] == second["openvino_ga_cid"]
counts = [json.loads(files["stats"])["usage_count"] for files in (first, second)]
print("same identifier", same, "counts", counts)
check("without the module", here / "module", "without")
consent = here / "zero" / "home" / "intel" / "openvino_telemetry"
consent.parent.mkdir(parents=True)
consent.write_text("0")
check("file that holds 0", here / "zero")
check("CI=true", here / "ci", CI="true")
PY
cat > "$work/expected" << 'TXT'
first import hosts ['www.google-analytics.com'] files ['openvino_ga_cid', 'stats'] threads 2
second import hosts ['www.google-analytics.com'] files ['openvino_ga_cid', 'stats'] threads 2
same identifier True counts [1, 2]
without the module hosts [] files [] threads 1
file that holds 0 hosts [] files ['openvino_telemetry'] threads 1
CI=true hosts [] files [] threads 1
TXT
cd "$work"
venv/bin/python check.py | tee seen
diff expected seen
