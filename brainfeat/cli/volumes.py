"""The options by which commands cut volumes into slices, and what they say of them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from brainfeat.cli import options

patient_key_option = click.option(
    "--patient-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with a secret key of at least 16 bytes that patients are hashed with. With the same "
    "key, a patient has the same group in every run.  [default: a random key, which is not kept]",
)
label_option = click.option(
    "--label", default="", metavar="CLASS", help="Class of all the volumes."
)
class_folders_option = click.option(
    "--class-folders",
    is_flag=True,
    help="Use the name of the first folder below each FOLDER of volumes as the class; it must not "
    "name a person.",
)
# Those that only volumes have, in the order of the help page.
VOLUME_OPTIONS = (
    options.slices_option,
    options.window_option,
    options.orientation_option,
    options.volume_option,
    patient_key_option,
    label_option,
    class_folders_option,
    options.burned_in_option,
)
VOLUME_NAMES = (
    *("slices", "window", "orientation", "volume", "patient_key"),
    *("label", "class_folders", "allow_burned_in"),
)
RANDOM_KEY = (
    "patients were hashed with a random key, which is not kept; they have other groups in another "
    "run unless --patient-key is given"
)

Command = Callable[..., Any]


def volume_options(command: Command) -> Command:
    """Give a command the options that only volumes have."""
    for option in reversed(VOLUME_OPTIONS):
        command = option(command)
    return command


class Cut(NamedTuple):
    """How volumes are cut, as the options say; the arguments of `brainfeat.read_volumes`.

    Attributes
    ----------
    given : tuple of str
        The options that were given.
    """

    given: tuple[str, ...]
    arguments: dict[str, Any]


def take_volume_options(chosen: Mapping[str, Any]) -> Cut:
    """Translate the options that only volumes have into arguments of `brainfeat.read_volumes`.

    Parameters
    ----------
    chosen : mapping
        The values of these options by their names, and others.

    Returns
    -------
    Cut
    """
    from brainfeat.readers.volumes import SlicePolicy
    from brainfeat.tables.pseudonyms import read_patient_key

    policy = SlicePolicy(
        slices=chosen["slices"] or "all",
        window=chosen["window"] or "auto",
        orientation=chosen["orientation"] or "auto",
        volume=chosen["volume"],
    )
    key = chosen["patient_key"]
    arguments = {
        "policy": policy,
        "patient_key": None if key is None else read_patient_key(key),
        **{name: chosen[name] for name in ("label", "class_folders", "allow_burned_in")},
    }
    return Cut(tuple(name for name in VOLUME_NAMES if chosen[name]), arguments)


def list_options(names: Iterable[str]) -> str:
    """Spell options as the command line does.

    Examples
    --------
    >>> list_options(["class_folders", "label"])
    '--class-folders and --label'
    """
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)
