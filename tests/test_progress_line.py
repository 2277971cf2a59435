"""What a command shows on a terminal while it works."""

import io
from contextlib import redirect_stderr

import pytest

from brainfeat.cli.options import ProgressLine


class Terminal(io.StringIO):
    """Standard error of a terminal, which keeps what was written to it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_at_once_what_is_under_way() -> None:
    with redirect_stderr(Terminal()) as terminal:
        with ProgressLine("evaluating"):
            assert terminal.getvalue() == "evaluating …"
        assert terminal.getvalue().endswith("\r\x1b[K")


def test_the_line_is_removed_before_an_error() -> None:
    with redirect_stderr(Terminal()) as terminal:
        with pytest.raises(ValueError, match="refused"), ProgressLine("evaluating"):
            raise ValueError("refused")
        assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("step", "done", "total", "said"),
    [
        (30, 1, 3, "1 of 3 fits (33%), 1 min 0 s left"),
        (1, 64, 128, "64 of 128 fits (50%), 64.0/s, 1 s left"),
    ],
)
def test_a_line_that_counted_stays_and_has_a_rate_where_it_is_one(
    monkeypatch: pytest.MonkeyPatch, step: int, done: int, total: int, said: str
) -> None:
    clock = iter(range(0, 1000, step))
    with redirect_stderr(Terminal()) as terminal, monkeypatch.context() as patch:
        patch.setattr("brainfeat.cli.options.time.monotonic", lambda: next(clock))
        with ProgressLine("fitting", "fits") as progress:
            progress(done, total)
    assert terminal.getvalue() == f"fitting …\rfitting: {said}\x1b[K\n"


def test_nothing_but_a_terminal_gets_a_line_that_is_removed() -> None:
    with redirect_stderr(io.StringIO()) as file, ProgressLine("evaluating"):
        pass
    assert file.getvalue() == ""
