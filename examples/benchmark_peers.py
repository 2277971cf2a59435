"""Compare stage one with other libraries that compute the same features of the same images.

    pip install "brainfeat[bench]"
    python examples/benchmark_peers.py
    python examples/benchmark_peers.py --images path/to/slices --number 96 --json

Each peer runs VGG16 with the same seeded random weights over the same JPEG files: a Keras script as
a user would write it, other libraries as their users would call them, and brainfeat. Each peer runs
in a process of its own and computes everything once before a pass is timed, so no measurement
includes imports or compilation; its features must agree with those of Keras. The peers take turns,
one pass each in every round. Without ``--images``, the slices are synthetic.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from peers import PEERS, Array, Job, Peer, read_pixels, write_weights
from PIL import Image

from brainfeat import runtime
from brainfeat.phantoms import CLASS_NAMES, draw_slice

SUFFIXES = (".jpg", ".jpeg", ".png")
IN_MEMORY = 16  # images in a pass from memory
LARGEST_ERROR = 1e-4  # of a float32 feature, as a fraction of the largest
SMALLEST_COSINE = 0.999  # between an image's features in reduced precision and the expected ones


def write_images(job: Job, source: Path | None, number: int) -> None:
    """Draw synthetic slices, or copy images evenly from a folder."""
    if source is None:
        for index in range(number):
            patient, label = divmod(index, len(CLASS_NAMES))
            path = job.folder / "images" / CLASS_NAMES[label] / f"{patient:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw_slice(CLASS_NAMES[label], patient=patient, level=8, size=job.size)
            Image.fromarray(pixels).save(path, quality=92)
        return
    # One of each group of copies, because brainfeat would compute them only once.
    paths = (path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES)
    distinct = list({hashlib.sha256(path.read_bytes()).digest(): path for path in paths}.values())
    if len(distinct) < number:
        sys.exit(f"{source} has {len(distinct)} different JPEG and PNG files, fewer than {number}")
    for index in range(number):
        path = distinct[index * len(distinct) // number]
        copy = job.folder / "images" / path.parent.name / f"{index:05}{path.suffix.lower()}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def serve(connection: Connection, peer: Peer, job: Job) -> None:
    """Run a peer in its process: compute the requested passes and report how long they took."""
    try:
        passes = peer.prepare(job, peer.precision, peer.batch_size)
    except ImportError as error:
        connection.send(Unusable(" ".join(str(error).split())))
        return
    pixels = read_pixels(job.find_images()[:IN_MEMORY], job.size)
    kinds = {"files": passes.files, "memory": lambda: passes.memory(pixels)}
    connection.send({kind: compute() for kind, compute in kinds.items()})
    with suppress(EOFError):  # where the run stopped because another peer failed
        for kind in iter(connection.recv, "end"):
            started = time.perf_counter()
            kinds[kind]()
            connection.send(time.perf_counter() - started)
        connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Unusable(NamedTuple):
    """What a peer answers whose library is installed and cannot be imported."""

    reason: str


class Agreement(NamedTuple):
    """How close features are to those of Keras."""

    error: float  # the largest difference, as a fraction of the largest feature
    cosine: float  # the smallest between an image's features and the expected ones

    def holds(self, precision: str) -> bool:
        """Return whether the features agree in this precision."""
        if precision == "float32":
            return self.error <= LARGEST_ERROR
        return self.cosine >= SMALLEST_COSINE


def compare(features: Array, expected: Array) -> Agreement:
    """Measure how close features (n, 512) are to the expected ones."""
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (features * expected).sum(axis=1) / norms
    error = np.abs(features - expected).max() / np.abs(expected).max()
    return Agreement(float(error), float(cosines.min()))


class Worker:
    """The process of a peer, seen from the parent, and its measurements."""

    def __init__(self, peer: Peer, job: Job) -> None:
        self.peer = peer
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(theirs, peer, job), daemon=True)
        self.process.start()
        theirs.close()
        self.reason = ""
        self.seconds: dict[str, list[float]] = {"files": [], "memory": []}
        self.agreement = Agreement(np.inf, 0.0)
        self.peak_mb = 0.0

    @property
    def agrees(self) -> bool:
        """Whether it computes what Keras computes."""
        return self.agreement.holds(self.peer.precision)

    def check(self, expected: Array) -> None:
        """Wait for its first features and compare them."""
        features = self.ask()
        self.agreement = compare(features["memory"], expected[:IN_MEMORY])
        if not self.peer.name.startswith(
            "Keras"
        ):  # TensorFlow decodes JPEG differently from Pillow
            files = compare(features["files"], expected)
            self.agreement = max(self.agreement, files, key=lambda found: found.error)

    def time(self, kind: str, rest: float) -> None:
        """Time one pass, after a rest in seconds."""
        time.sleep(rest)
        self.seconds[kind].append(self.ask(kind))

    def finish(self) -> None:
        """End the process, which reports its peak memory."""
        self.peak_mb = self.ask("end")

    def ask(self, kind: str = "") -> Any:
        """Ask for a pass, if one is named, and wait for the answer."""
        try:
            if kind:
                self.connection.send(kind)
            answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise PeerFailedError("its error is above") from error
        if isinstance(answer, Unusable):
            self.reason = answer.reason
            raise PeerFailedError(f"it cannot be imported ({self.reason})")
        return answer


class PeerFailedError(Exception):
    """The process of a peer has ended."""


@contextmanager
def running(peers: list[Peer], job: Job) -> Iterator[list[Worker]]:
    """Start the processes, and end those that are left however the body ends."""
    print("warming up", ", ".join(peer.label for peer in peers), file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the benchmark was ended"))
    workers: list[Worker] = []
    try:
        workers.extend(Worker(peer, job) for peer in peers)
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()


def take_turns(workers: list[Worker], rounds: int, rest: float) -> list[Worker]:
    """Time one pass of each kind of each worker in every round; return those that finished."""
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for kind in ("files", "memory"):
            workers = [worker for worker in workers if attempt(worker, worker.time, kind, rest)]
    return [worker for worker in workers if attempt(worker, worker.finish)]


def attempt(worker: Worker, work: Callable[..., None], *arguments: Any) -> bool:
    """Let a worker work; return whether it did. The others go on without one that failed."""
    try:
        work(*arguments)
    except PeerFailedError as error:
        print(f"{worker.peer.label} failed, and is left out; {error}", file=sys.stderr)
        return False
    return True


def summarise(worker: Worker, script: Worker, numbers: dict[str, int]) -> dict[str, Any]:
    """Return the measurements of a peer: median, minimum and maximum over the rounds."""
    rates = {kind: [number / s for s in worker.seconds[kind]] for kind, number in numbers.items()}
    pairs = zip(script.seconds["files"], worker.seconds["files"], strict=True)
    return {
        "peer": worker.peer.name,
        "precision": worker.peer.precision,
        "batch_size": worker.peer.batch_size,
        "images_per_second": spread(rates["files"]),
        "images_per_second_from_memory": spread(rates["memory"]),
        "ratio": spread([theirs / own for theirs, own in pairs]),
        "peak_mb": round(worker.peak_mb),
        **worker.agreement._asdict(),
    }


def spread(values: list[float]) -> list[float]:
    """Return the median, the minimum and the maximum."""
    return [median(values), min(values), max(values)]


def describe_machine() -> dict[str, Any]:
    """Return the date, the processor and the versions of all installed peers."""
    packages = {package for peer in PEERS if not peer.is_absent() for package in peer.packages}
    versions = {**runtime.versions(), **{package: version(package) for package in sorted(packages)}}
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, "processor": runtime.processor(), "versions": versions}


def show(document: dict[str, Any]) -> None:
    """Print the measurements as a Markdown table, and name the absent peers."""
    processor = document["processor"]
    print(document["date"], processor["name"], f"{processor['cores']} cores", sep=", ")
    print(", ".join(f"{name} {number}" for name, number in document["versions"].items()))
    print(f"{document['images']} images, median (minimum–maximum) of {document['rounds']} rounds\n")
    print("| peer | precision | images/s | from memory | ratio to the script | MB | agreement |")
    print("|---|---|---|---|---|---|---|")
    for row in document["peers"]:
        names = "images_per_second", "images_per_second_from_memory", "ratio"
        rates = ["{:.2f} ({:.2f}–{:.2f})".format(*row[name]) for name in names]
        agreement = f"cosine {row['cosine']:.5f}"
        if row["precision"] == "float32":
            agreement = f"error {row['error']:.0e}"
        cells = row["peer"], row["precision"], *rates, row["peak_mb"], agreement
        print("|", " | ".join(map(str, cells)), "|")
    for name in document["absent"]:
        print(f"\n{name}: absent (pip install brainfeat[bench])", end="")
    for name, reason in document["unusable"].items():
        print(f"\n{name}: installed, but cannot be imported ({reason})", end="")
    print()


def main() -> None:
    """Time the peers in turns and print the result."""
    parser = argparse.ArgumentParser(description="Compare stage one with other libraries.")
    parser.add_argument("--images", type=Path, help="folder of images; synthetic by default")
    parser.add_argument("--number", type=int, default=48, help="images (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed passes (%(default)s)")
    # Until then, the threads of the previous peer have stopped spinning.
    parser.add_argument("--rest", type=float, default=0.5, help="seconds before a pass")
    parser.add_argument("--size", type=int, default=224, help="pixels that VGG16 sees")
    parser.add_argument("--batch-size", type=int, help="for all peers, not the best of each")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    multiprocessing.set_start_method("spawn")
    peers = [peer for peer in PEERS if not peer.is_absent()]
    packages = {package for peer in peers for package in peer.packages}
    if chosen.batch_size:
        peers = [replace(peer, batch_size=chosen.batch_size) for peer in peers]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), chosen.size)
        write_images(job, chosen.images, chosen.number)
        writer = multiprocessing.Process(target=write_weights, args=(job, packages))
        writer.start()
        writer.join()
        if writer.exitcode:
            sys.exit("the weights could not be written; the error is above")
        with running(peers, job) as started:
            expected = np.load(job.folder / "expected.npy")
            workers = [w for w in started if attempt(w, w.check, expected)]
            agreed = [worker for worker in workers if worker.agrees]
            right = take_turns(agreed, chosen.rounds, chosen.rest)
    if not right or right[0].peer is not peers[0]:
        sys.exit(f"nothing can be compared without {peers[0].label}")
    numbers = {"files": chosen.number, "memory": min(chosen.number, IN_MEMORY)}
    document = {
        **describe_machine(),
        "images": chosen.number,
        "rounds": chosen.rounds,
        "peers": [summarise(worker, right[0], numbers) for worker in right],
        "absent": list(dict.fromkeys(peer.name for peer in PEERS if peer.is_absent())),
        "unusable": {worker.peer.name: worker.reason for worker in started if worker.reason},
    }
    if chosen.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)
    for worker in workers:
        if not worker.agrees:
            found = "error {:.1e}, cosine {:.5f}".format(*worker.agreement)
            print(f"{worker.peer.label} computes something else: {found}", file=sys.stderr)
    sys.exit(len(right) < len([worker for worker in started if not worker.reason]))


if __name__ == "__main__":
    main()
