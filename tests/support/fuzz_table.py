"""Mutated CSV files for `read_table`: each gives a table or a TableError.

``python -m support.fuzz_table --cases 20000`` tries 20,000 mutations.
"""

import argparse
import codecs
import random
import tempfile
from collections import Counter
from pathlib import Path

from brainfeat import read_table, write_table
from brainfeat.errors import TableError

FILES = ("1.jpg", "a/2.jpg", "a/b/3.jpg", "=x/4.jpg", "é/5.jpg")
SEEDS = (
    "path,label\n1.jpg,glioma\na/2.jpg,notumor\n",
    "path,label,split,group,source\n1.jpg,a,train,p1,s\na/2.jpg,b,test,p2,s\na/b/3.jpg,a,val,,\n",
    '"path","label","note"\r\n"1.jpg","a ""b""","x,\ny"\r\n"a/2.jpg","b",""\r\n',
    "\ufeffPath, Label\n'=x/4.jpg,'=1+1\né/5.jpg,e\u0301\n1.jpg,é\n",
    "label,path,group\n,1.jpg,\n,./1.jpg,\n,a//2.jpg,-1\n",
)
WORDS = (
    *("..", "../", "/", "\\", "C:", "~", "file://", "%2e%2e", ".", "./", "//"),
    *(",", ";", "\t", "|", '"', '""', "'", "\n", "\r", "\r\n", "\0", "\x1b[2J", " ", "\u200b"),
    *("=", "+", "-", "@", "＝", "\u202e", "\ufeff", "\u2028", "\x85", "e\u0301", "é", "👩‍⚕️"),
    *("path", "label", "split", "group", "train", "Testing", "dev", "1.jpg", "a/2.jpg"),
    *("<script>", "CON", "$x$", "x" * 1100, "a" * 4100),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig")


def mutate(rnd: random.Random) -> bytes:
    """Make the bytes of one hostile CSV."""
    text = rnd.choice(SEEDS)
    for _ in range(rnd.randint(0, 4)):
        place = rnd.randrange(len(text) + 1)
        match rnd.randrange(4):
            case 0:
                text = text[:place] + rnd.choice(WORDS) + text[place:]
            case 1:
                text = text[:place] + text[place + rnd.choice((1, 1, 3, 9)) :]
            case 2:
                text = text[:place] + rnd.choice(WORDS) + text[place + 1 :]
            case 3:
                text += rnd.choice(text.splitlines() or [""]) + "\n"
    data = text.encode()
    match rnd.randrange(10):
        case 0:
            place = rnd.randrange(len(data) + 1)
            data = data[:place] + rnd.randbytes(rnd.randint(1, 4)) + data[place:]
        case 1:
            data = text.encode(rnd.choice(ENCODINGS), "replace")
        case 2:
            data = rnd.choice((b"", codecs.BOM_UTF16_BE, rnd.randbytes(40))) + data
    return data


def fuzz(cases: int, *, seed: int = 0) -> Counter[str]:
    """Read so many files; count what came of them, and raise where it was not one of the two."""
    rnd = random.Random(seed)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for file in FILES:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
        for _ in range(cases):
            data = mutate(rnd)
            (root / "table.csv").write_bytes(data)
            outcomes[_read(root, data)] += 1
    return outcomes


def _read(root: Path, data: bytes) -> str:
    try:
        table = read_table(root / "table.csv")
    except TableError as error:
        message = str(error)
        if not message.isprintable() or len(message) > 2000 or "table.csv" not in message:
            raise AssertionError(f"{data!r} gave the message {message!r}") from error
        return "refused"
    for row in range(len(table)):
        if not table.absolute_path(row).resolve().is_relative_to(root):
            raise AssertionError(f"{data!r} leads to {table.absolute_path(row)}")
    again = read_table(write_table(table, root / "again.csv", overwrite=True))
    if (again.paths, again.labels, again.splits, again.groups, again.sources) != (
        table.paths,
        table.labels,
        table.splits,
        table.groups,
        table.sources,
    ):
        raise AssertionError(f"{data!r} is another table when it was written")
    return "read"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Read mutated CSV files.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(dict(fuzz(chosen.cases, seed=chosen.seed)))


if __name__ == "__main__":
    main()
