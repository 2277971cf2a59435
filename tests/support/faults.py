"""Fault injection for the file layer: a server that forks a child process for each fault.

The server has ``faults.c`` preloaded and everything imported. For each request it forks a child,
which arms the shim and does one task below one folder; at a boundary it is killed or a call fails.
The tests check what the child leaves. TensorFlow is not involved.
"""

import atexit
import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.shards import list_shards, write_shard
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import BrainfeatError
from brainfeat.extraction.extractor import extract
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.readers import read_image
from brainfeat.tables.table import read_table
from support.powercut import KINDS, Call, read_trace

MODES = (
    "watch",
    "before",
    "after",
    "torn",
    "fail",
    "fail-on",
    "short",
    "drop",
    "flip",
)
BOUNDARIES = tuple(kind for kind in KINDS if kind not in ("close", "mark"))

Act = Callable[[], Any]

SIZE = 16
N_FEATURES = 8
ROWS_A_SHARD = 4
SPEC = FeatureSpec(
    backbone="blocks",
    layer="rows",
    n_features=N_FEATURES,
    weights_sha256="0" * 64,
    input_size=SIZE,
)


def block_means(images: np.ndarray) -> np.ndarray:
    """Give the means of 8 bands of pixels: features that need no base."""
    return images.reshape(len(images), N_FEATURES, -1).mean(axis=2)


class Blocks:
    """A backbone of NumPy that takes one image at a time, and counts and delays them."""

    def __init__(self, *, seconds: float = 0.0, spec: FeatureSpec = SPEC) -> None:
        self.seconds, self.spec, self.images = seconds, spec, 0

    @property
    def recipe(self) -> dict[str, Any]:
        return {"blocks": self.spec.fingerprint}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert len(images) == 1
        self.images += 1
        time.sleep(self.seconds)
        features = block_means(images)
        mark(f"computed {features.tobytes().hex()}")
        return features


def draw(path: Path, seed: int) -> None:
    """Draw one image file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


def known_features(*folders: Path) -> dict[bytes, bytes]:
    """Compute the features of all images below folders, by the digest of the file."""
    return {
        hashlib.sha256(path.read_bytes()).digest(): block_means(
            preprocess_image(read_image(path), size=SIZE)[None]
        )[0].tobytes()
        for folder in folders
        for path in sorted(folder.rglob("*.png"))
    }


def small_shards(rows: int = ROWS_A_SHARD, change: Callable[..., Any] = setattr) -> None:
    """Make stage one write a shard every few rows; a test passes ``monkeypatch.setattr``."""
    found = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("brainfeat.") and hasattr(module, "_SHARD_SECONDS")
    ]
    assert found, "the module that writes shards has no _SHARD_SECONDS any more"
    for module in found:
        assert rows < module.CHUNK_ROWS < module._READ_ROWS
        change(module, "CHUNK_ROWS", rows)
        change(module, "_READ_ROWS", rows)


def contents(path: Path) -> dict[str, Any]:
    """Give all that a file holds as h5py reads it, besides the time that it was written at."""
    with h5py.File(path, "r", locking=False) as file:
        held: dict[str, Any] = {
            name: value.tobytes() if hasattr(value, "tobytes") else value
            for name, value in file.attrs.items()
            if name not in ("created_at", "content_sha256")
        }

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                held[f"/{name}"] = (item.shape, item.dtype.str, item[()].tobytes())

        file.visititems(take)
    return held


def rows_of(path: Path) -> dict[bytes, bytes]:
    """Give the features of a cache by digest of the image file; opening it compares all bytes."""
    with FeatureCache.open(path) as cache:
        digests = [row.tobytes() for row in cache.sha256]
        return dict(zip(digests, (row.tobytes() for row in cache.X[:]), strict=True))


def rows_of_shards(folder: Path) -> dict[bytes, bytes]:
    """Give the features in the whole shards of a folder by digest of the image file."""
    rows = {}
    for shard in list_shards(folder):
        rows.update(rows_of_shard(shard.path))
    return rows


def rows_of_shard(path: Path) -> dict[bytes, bytes]:
    """Give the features of a shard, as h5py reads it, by digest of the image file."""
    with h5py.File(path, "r", locking=False) as file:
        digests = [row.tobytes() for row in file["sha256"][:]]
        return dict(zip(digests, (row.tobytes() for row in file["features"][:]), strict=True))


@functools.cache
def make_bundle(seed: int = 0) -> HeadBundle:
    """Make a small dense head of arrays, so that nothing here needs Keras."""
    from brainfeat.heads.dense import DenseHead
    from brainfeat.heads.record import FitRecord

    rng = np.random.default_rng(seed)
    shapes = [(N_FEATURES, 6), (6, 3)]
    return HeadBundle(
        spec=SPEC,
        class_names=("glioma", "notumor", "pituitary"),
        head="dense",
        params={"epochs": 3},
        estimator=DenseHead.from_arrays(
            [(rng.standard_normal(shape), rng.standard_normal(shape[1])) for shape in shapes],
            mean=np.zeros(N_FEATURES),
            scale=np.ones(N_FEATURES),
            classes=np.arange(3),
        ),
        temperature=1.3,
        training=FitRecord(random_state=seed),
        probe=rng.standard_normal((8, N_FEATURES)).astype(np.float32),
    )


# --- what a child does -------------------------------------------------------------------------


def prepare_extract(folder: Path, *, images: str, seconds: float = 0.0, **options: Any) -> Act:
    """Run stage one over a folder of images; mark each shard that was acknowledged."""
    acknowledge()
    backbone = Blocks(seconds=seconds)
    table = read_table(images)

    def act() -> dict[str, Any]:
        output = folder / "features.h5"
        done = extract(table, output, backbone=backbone, batch_size=1, n_jobs=1, **options)
        return {"computed": done.computed, "rejected": len(done.rejected)}

    return act


def prepare_save(folder: Path, *, seed: int, **options: Any) -> Act:
    """Save a bundle."""
    bundle = make_bundle(seed)
    return lambda: str(bundle.save(folder / "head.h5", **options))


def acknowledge() -> None:
    """Mark the images of each shard as soon as ``write_shard`` has returned."""

    def write_and_mark(*arguments: Any, **options: Any) -> Path:
        path = write_shard(*arguments, **options)
        mark("rows " + " ".join(digest.hex() for digest in options["sha256"]))
        return path

    for name, module in list(sys.modules.items()):
        if name.startswith("brainfeat.") and name != "brainfeat.cache.cache":
            for key, value in list(vars(module).items()):
                if value is write_shard:
                    setattr(module, key, write_and_mark)


def mark(text: str) -> None:
    """Write a line into the trace of a child; elsewhere there is none."""
    if MARKS:
        MARKS[0](text.encode())


def prepare_probe(folder: Path, *, file: str, places: int, seed: int) -> Act:
    """Open a file without verification after flips of one bit, and count what comes of them."""
    good = Path(file).read_bytes()
    path = folder / Path(file).name
    open_file = open_bundle if "head" in path.name else open_cache
    meant = open_file(Path(file), verify="off")
    rng = random.Random(seed)

    def act() -> dict[str, int]:
        counts = dict.fromkeys(("found", "harmless", "not found"), 0)
        for place in sorted(rng.sample(range(len(good)), places)):
            path.write_bytes(flip(good, place, rng.randrange(8)))
            os.write(2, f"{place}\n".encode())
            try:
                same = open_file(path, verify="off") == meant
            except BrainfeatError:
                counts["found"] += 1
            else:
                counts["harmless" if same else "not found"] += 1
        return counts

    return act


def flip(data: bytes, place: int, bit: int) -> bytes:
    """Change one bit."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


def open_cache(path: Path, **options: Any) -> Any:
    """Read all of a cache."""
    with FeatureCache.open(path, **options) as cache:
        columns = {name: values.tobytes() for name, values in cache.table.items()}
        about = (cache.spec, cache.class_names, cache.rejected, cache.provenance, cache.created_at)
        return columns, cache.X[:].tobytes(), cache.sha256.tobytes(), about


def open_bundle(path: Path, **options: Any) -> Any:
    """Read all of a bundle, and predict with it."""
    bundle = HeadBundle.load(path, **options)
    about = (bundle.spec, bundle.class_names, bundle.training, bundle.params)
    return bundle.predict_proba(make_bundle(0).probe).tobytes(), about


TASKS = {"extract": prepare_extract, "save": prepare_save, "probe": prepare_probe}
MARKS: list[Callable[[bytes], Any]] = []
LIMITS = {"fsize": resource.RLIMIT_FSIZE, "nofile": resource.RLIMIT_NOFILE}


def be_child(request: dict[str, Any]) -> None:
    """Do one request in a process of its own, and end it."""
    shim = ctypes.CDLL(None)
    shim.faults_seen.restype = ctypes.c_char_p
    MARKS.append(shim.faults_mark)
    signal.alarm(request.get("patience", 60))
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(log, 2)
    small_shards(request.get("shard_rows", ROWS_A_SHARD))
    act = TASKS[request["task"]](Path(request["folder"]), **request.get("options", {}))
    trace = os.open(request["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    result_file = os.open(request["result"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    kinds = sum(1 << KINDS.index(kind) for kind in request.get("kinds", BOUNDARIES))
    shim.faults_arm(
        request["folder"].encode(),
        kinds,
        ctypes.c_long(request.get("number", -1)),
        MODES.index(request.get("mode", "watch")),
        request.get("error", 0),
        -1 if "limit" in request else trace,
    )
    if "limit" in request:
        name, most = request["limit"]
        kind = LIMITS[name]
        was = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, was[1]))
    if "uid" in request:
        os.setgroups([])
        os.setgid(request["uid"])
        os.setuid(request["uid"])
    result: dict[str, Any] = {}
    try:
        result["value"] = act()
        mark("done")
    except BrainfeatError as error:
        result["error"], result["message"] = type(error).__name__, str(error)
    except BaseException:  # noqa: BLE001  whatever it is, the test must see it
        result["bug"] = traceback.format_exc()
    if "limit" in request:
        resource.setrlimit(kind, was)
    result["kinds"] = [KINDS[letter - ord("a")] for letter in shim.faults_seen()]
    os.write(result_file, json.dumps(result).encode())
    # Through libc, so that HDF5 closes what it still holds: it may crash there.
    shim.exit(0)


def serve() -> None:
    """Fork a child for each line of standard input, and say how it ended."""
    # A child that gives its rights up may not reach the folder of Pillow's plugins any more.
    Image.init()
    for line in sys.stdin:
        request = json.loads(line)
        if (child := os.fork()) == 0:
            try:
                be_child(request)
            finally:
                os._exit(77)
        if "kill_after" in request:
            time.sleep(request["kill_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def main() -> None:
    """Import and compute what the children would each do anew, and serve."""
    for seed in range(2):
        make_bundle(seed).predict_proba(make_bundle(seed).probe)
    assert "tensorflow" not in sys.modules
    serve()


# --- what a test does --------------------------------------------------------------------------


@functools.cache
def build_shim() -> Path:
    """Compile the shim once a session, or skip."""
    if sys.platform != "linux":
        pytest.skip("faults.c stands before the libc of Linux")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler to build faults.c with")
    library = Path(tempfile.mkdtemp(prefix="brainfeat-faults-"), "faults.so")
    atexit.register(shutil.rmtree, library.parent)
    source = Path(__file__).with_suffix(".c")
    command = [compiler, "-O1", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, source], check=True)
    return library


@dataclasses.dataclass
class Outcome:
    """How a child ended: its exit code or minus its signal, and what it told before."""

    code: int
    folder: Path
    request: dict[str, Any]

    @functools.cached_property
    def told(self) -> dict[str, Any]:
        return json.loads(Path(self.request["result"]).read_text() or "{}")

    @functools.cached_property
    def trace(self) -> list["Call"]:
        path = Path(self.request["trace"])
        # A child that was killed before its first call has none.
        return list(read_trace(path)) if path.exists() else []

    @property
    def acknowledged(self) -> set[bytes]:
        """The digests of the images whose shard was acknowledged."""
        return {digest for call in self.trace for digest in call.marks("rows")}

    @property
    def computed(self) -> list[bytes]:
        """The features that the backbone gave."""
        return [features for call in self.trace for features in call.marks("computed")]

    def forget(self) -> None:
        """Remove what the child left."""
        shutil.rmtree(self.folder)
        for key in ("log", "trace", "result"):
            Path(self.request[key]).unlink(missing_ok=True)

    def __str__(self) -> str:
        asked = {
            key: self.request[key] for key in ("task", "mode", "number") if key in self.request
        }
        log = Path(self.request["log"]).read_text()[-2000:]
        return f"{asked}: ended with {self.code}, told {self.told}\n{log}"


class Server:
    """A process with the shim preloaded that does requests one after the other."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.made = 0
        paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
        environment = {
            **os.environ,
            "LD_PRELOAD": str(build_shim()),
            "PYTHONPATH": os.pathsep.join(paths),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            # For a fork of a process with threads; there are none here.
            "PYTHONWARNINGS": "error",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from support.faults import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, task: str, **request: Any) -> Outcome:
        """Do one request and wait for its end."""
        (outcome,) = self.run_all([{"task": task, **request}])
        return outcome

    def run_all(self, requests: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        """Do requests one after the other; a child works while the test looks at the last one."""
        waiting: deque[dict[str, Any]] = deque()
        try:
            for request in map(self._fill, requests):
                self._send(request)
                waiting.append(request)
                if len(waiting) > 3:
                    yield self._take(waiting.popleft())
            while waiting:
                yield self._take(waiting.popleft())
        finally:
            # Where a test ends early, the server must not be left with answers for the next.
            for request in waiting:
                self._take(request)

    def _take(self, request: dict[str, Any]) -> Outcome:
        assert self._process.stdout is not None
        return Outcome(int(self._process.stdout.readline()), Path(request["folder"]), request)

    def _fill(self, request: dict[str, Any]) -> dict[str, Any]:
        self.made += 1
        place = self.work / f"{self.made:06}"
        return {
            "folder": str(place),
            **{key: str(place.with_suffix(f".{key}")) for key in ("log", "trace", "result")},
            **request,
        }

    def _send(self, request: dict[str, Any]) -> None:
        folder = Path(request["folder"])
        if "start" in request:
            shutil.copytree(request["start"], folder, dirs_exist_ok=True)
        folder.mkdir(exist_ok=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
