"""Tests that freeze what users build on: public names, commands, options."""

import subprocess
import sys

import click
import pytest

import brainfeat
from brainfeat.cli.main import COMMANDS, group

COMMON = {"--help"}
OPTIONS = {
    "bench": {
        "--backbone",
        "--size",
        "--crop",
        "--precision",
        "--batch-size",
        "--data",
        "--number",
        "--repeats",
        "--jobs",
        "--random-state",
        "--json",
    },
    "compare": {
        "--unit",
        "--group-label",
        "--split",
        "--classes",
        "--all-images",
        "--table",
        "--random-state",
        "--verify",
        "--json",
    },
    "demo": {"--output", "--backbone", "--weights", "--patients", "--random-state", "--json"},
    "doctor": {"--json"},
    "evaluate": {
        "--unit",
        "--group-label",
        "--split",
        "--classes",
        "--table",
        "--threshold",
        "--by",
        "--prevalence",
        "--floor",
        "--random-state",
        "--markdown",
        "--verify",
        "--json",
        "--report",
        "--card",
        "--checklist",
        "--include-images",
        "--images",
        "--overwrite",
    },
    "export": {
        "--output",
        "--weights",
        "--quantize",
        "--overwrite",
        "--verify",
    },
    "extract": {
        "--output",
        "--backbone",
        "--weights",
        "--scaling",
        "--size",
        "--precision",
        "--device",
        "--engine",
        "--layer",
        "--pooling",
        "--augment",
        "--rotation",
        "--zoom",
        "--flip",
        "--no-flip",
        "--style",
        "--style-from",
        "--range",
        "--crop",
        "--batch-size",
        "--jobs",
        "--on-error",
        "--force",
        "--keep-masks",
        "--slices",
        "--window",
        "--orientation",
        "--volume",
        "--patient-key",
        "--label",
        "--class-folders",
        "--allow-burned-in",
        "--group-level",
        "--labels",
        "--label-columns",
        "--signature",
        "--no-signature",
        "--overwrite",
        "--random-state",
        "--json",
    },
    "predict": {
        "--input",
        "--input-table",
        "--weights",
        "--precision",
        "--engine",
        "--coverage",
        "--false-alarm-rate",
        "--force",
        "--group-level",
        "--heatmap",
        "--heatmap-kind",
        "--sr",
        "--secondary-capture",
        "--slices",
        "--window",
        "--orientation",
        "--volume",
        "--allow-burned-in",
        "--patient-key",
        "--keep-masks",
        "--output",
        "--overwrite",
        "--jobs",
        "--verify",
        "--json",
    },
    "fit-head": {
        "--unit",
        "--output",
        "--head",
        "--how",
        "--param",
        "--search",
        "--n-iter",
        "--verify",
        "--epochs",
        "--class-weight",
        "--generate",
        "--mixup",
        "--val-fraction",
        "--bag",
        "--group-label",
        "--cv",
        "--repeats",
        "--group-by",
        "--join",
        "--layer",
        "--ablate-blocks",
        "--learning-curve",
        "--curve-repeats",
        "--curve-plot",
        "--ablate",
        "--ablate-on",
        "--classes",
        "--margin",
        "--ablation-plot",
        "--ood-examples",
        "--signature",
        "--no-signature",
        "--jobs",
        "--table",
        "--overwrite",
        "--random-state",
        "--json",
    },
    "info": {"--verify", "--json"},
    "audit": {
        "--threshold",
        "--table",
        "--strict",
        "--pairs",
        "--labels",
        "--map",
        "--verify",
        "--overwrite",
        "--random-state",
        "--json",
    },
    "link": {"--take", "--output", "--verify", "--overwrite", "--json"},
    "stress": {
        "--unit",
        "--group-label",
        "--output",
        "--kinds",
        "--number",
        "--split",
        "--weights",
        "--engine",
        "--jobs",
        "--report",
        "--markdown",
        "--overwrite",
        "--random-state",
        "--verify",
        "--json",
    },
    "slices": {
        "--output",
        "--slices",
        "--window",
        "--orientation",
        "--volume",
        "--patient-key",
        "--label",
        "--class-folders",
        "--group-level",
        "--labels",
        "--label-columns",
        "--keep-masks",
        "--allow-burned-in",
        "--overwrite",
        "--json",
    },
    "split": {
        "--output",
        "--test-fraction",
        "--val-fraction",
        "--leave-out",
        "--group-by",
        "--keep-masks",
        "--group-level",
        "--labels",
        "--label-columns",
        "--overwrite",
        "--random-state",
        "--json",
    },
}


def options_of(command: click.Command) -> set[str]:
    names = {
        name
        for parameter in command.params
        for name in [*parameter.opts, *parameter.secondary_opts]
        if name.startswith("--")
    }
    return names - COMMON


def test_public_names() -> None:
    assert brainfeat.__all__ == [
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
    assert all(hasattr(brainfeat, name) for name in brainfeat.__all__)


IMPORT_EACH = """
import os, sys
import numpy, sklearn.pipeline  # what takes the time, once for all

for name in sys.argv[1:]:
    if os.fork() == 0:
        exec(f"from brainfeat import {name}")
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"from brainfeat import {name}")
"""


def test_each_public_name_can_be_the_first_import() -> None:
    words = [sys.executable, "-c", IMPORT_EACH, *brainfeat.__all__]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = brainfeat.nonsense


def test_commands() -> None:
    assert set(COMMANDS) == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert options_of(command) == OPTIONS[name]
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_import_and_help_are_light() -> None:
    code = (
        "import sys, brainfeat, brainfeat.cli\n"
        "try: brainfeat.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'scipy', 'matplotlib', 'h5py', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "extract" in done.stdout
