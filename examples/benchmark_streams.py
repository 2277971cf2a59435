"""Streams and batches of OpenVINO: images per second, processor time and peak memory.

    python examples/benchmark_streams.py
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python examples/benchmark_streams.py    # huge pages

Each line is a process of its own, which computes noise by random weights: the best of a few rounds.
"""

import argparse
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from brainfeat.extraction import openvino_engine
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each precision, number of streams and batch size."""
    parser = argparse.ArgumentParser(description="Measure streams and batches of OpenVINO.")
    parser.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--number", type=int, default=32, help="images of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        measure(chosen)
        return
    print("precision  streams  batch  images/s  processor ms an image  peak, MB")
    common = ["--backbone", chosen.backbone, "--size", chosen.size]
    common += ["--number", chosen.number, "--rounds", chosen.rounds, "--child"]
    for precision in chosen.precision:
        for streams in chosen.streams:
            for batch in chosen.batch:
                own = ["--precision", precision, "--streams", streams, "--batch", batch]
                command = [sys.executable, __file__, *map(str, [*common, *own])]
                print(subprocess.run(command, check=True, stdout=-1, text=True).stdout, end="")


def measure(chosen: argparse.Namespace) -> None:
    """Compute rounds by all streams at the same time, and print the best."""
    (precision,), (streams,), (batch,) = chosen.precision, chosen.streams, chosen.batch
    openvino_engine._MOST_STREAMS = streams
    options = {"weights": "random", "input_size": chosen.size, "engine": "openvino"}
    copies = load_backbone(chosen.backbone, precision=precision, **options).compile()
    shape = batch, chosen.size, chosen.size, 3
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    turns = max(1, chosen.number // (batch * len(copies)))

    def compute(copy: object) -> None:
        for _ in range(turns):
            copy(images)

    number, best = turns * batch * len(copies), []
    with ThreadPoolExecutor(len(copies)) as threads:
        for _ in range(1 + chosen.rounds):
            started = time.perf_counter(), time.process_time()
            list(threads.map(compute, copies))
            best.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    wall, busy = np.min(best[1:], axis=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{precision:<11}{len(copies):>7}{batch:>7}{number / wall:>10.1f}"
        f"{1e3 * busy / number:>23.1f}{peak:>10.0f}"
    )


if __name__ == "__main__":
    main()
