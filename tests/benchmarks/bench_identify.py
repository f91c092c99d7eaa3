"""How much of the machine's bare rate the service delivers over HTTP.

    python -m tests.benchmarks.bench_identify [--seconds 15] [--rounds 3] [--persons 1000]

The bare limit is decode, detect, align and embed in a plain loop, one process per core, no
HTTP and no store; service and limit are measured in turn, in the same run. The load comes
from wrk (Debian package `wrk`), whose share of the CPU is printed: it competes for the same
cores. Without LFW the photo is one of tests/photos, scaled to LFW's size.
"""

import argparse
import itertools
import json
import multiprocessing
import multiprocessing.synchronize
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.inference.detector import Detector
from app.inference.embedder import embed_batch
from app.inference.pool import available_cores
from app.inference.session import open_session
from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER, DetectorSpec, EmbedderSpec
from app.vision.geometry import align
from app.vision.image import Photo
from tests.conftest import PHOTOS, SHARED

LUA = """
local bodies = {}
for path in io.lines(os.getenv("FACEID_BENCH_PHOTOS")) do
  local file = io.open(path, "rb"); bodies[#bodies + 1] = file:read("*a"); file:close()
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
local next = 0
function request()
  next = next % #bodies + 1
  return wrk.format(nil, "/identify", nil, bodies[next])
end
function done(summary, latency)
  print(string.format("RESULT {\\"requests\\": %d, \\"microseconds\\": %d, \\"errors\\": %d, " ..
    "\\"p50\\": %f, \\"p99\\": %f}", summary.requests, summary.duration,
    summary.errors.status + summary.errors.timeout + summary.errors.read,
    latency:percentile(50), latency:percentile(99)))
end
"""


def photos(count: int) -> list[bytes]:
    """LFW photos of distinct persons, all 250 x 250 with exactly one face."""
    detector = Detector(*open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", 1))
    files = sorted(SHARED.glob("lfw/*/*_0001.jpg"))
    single = (
        data
        for data in (file.read_bytes() for file in files)
        if len(detector.detect(Photo(data, 10**8))) == 1
    )
    if files:
        return list(itertools.islice(single, count))
    image = cv2.imread(str(PHOTOS / "grace_hopper.jpg"))
    small = cv2.resize(image[60:560, :500], (250, 250), interpolation=cv2.INTER_AREA)
    return [
        cv2.imencode(".jpg", cv2.convertScaleAbs(small, alpha=1 - i / (2 * count)))[1].tobytes()
        for i in range(count)
    ]


class Bare:
    """The same models, back to back."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(1)
        detector, spec = open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", 1)
        self.detector = Detector(detector, spec)
        self.embedder, _ = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads)

    def __call__(self, data: bytes) -> None:
        photo = Photo(data, 10**8)
        faces = self.detector.detect(photo)
        for face in faces:
            embed_batch(self.embedder, [align(photo, face.landmarks)])


def _bare_process(
    images: list[bytes],
    seconds: float,
    start: multiprocessing.synchronize.Barrier,
    done: "multiprocessing.Queue[int]",
) -> None:
    bare = Bare(1)
    bare(images[0])
    start.wait()
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        bare(images[count % len(images)])
        count += 1
    done.put(count)


def bare_rate(images: list[bytes], seconds: float, cores: int) -> float:
    """Images per second with one process per core."""
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(cores), context.Queue()
    processes = [
        context.Process(target=_bare_process, args=(images[i::cores], seconds, start, done))
        for i in range(cores)
    ]
    for process in processes:
        process.start()
    total = sum(done.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def bare_latency(images: list[bytes], seconds: float, cores: int) -> float:
    """Median milliseconds of one image with all cores on it."""
    bare = Bare(cores)
    bare(images[0])
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        bare(images[len(times) % len(images)])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def load(url: str, folder: Path, connections: int, seconds: float) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    output = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
            "-s",
            str(folder / "identify.lua"),
            url,
        ],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"FACEID_BENCH_PHOTOS": str(folder / "photos.txt")},
    ).stdout
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(re.search(r"RESULT (.*)", output)[1])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "rate": result["requests"] / (result["microseconds"] / 1e6),
        "p50": result["p50"] / 1e3,
        "p99": result["p99"] / 1e3,
        "errors": result["errors"],
        "share": used / wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--persons", type=int, default=1000)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; install it (Debian: apt-get install wrk).")

    cores = available_cores()
    images = photos(options.persons)
    probes = images[:: max(1, len(images) // 64)][:64]
    url = f"http://127.0.0.1:{options.port}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "identify.lua").write_text(LUA)
        for i, image in enumerate(probes):
            (folder / f"{i}.jpg").write_bytes(image)
        (folder / "photos.txt").write_text(
            "".join(f"{folder / f'{i}.jpg'}\n" for i in range(len(probes)))
        )
        server = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(options.port)],
            env=os.environ
            | {"FACEID_STORE__PATH": str(folder / "store"), "FACEID_AUTH__DISABLED": "true"},
            stderr=(folder / "log").open("w"),
        )
        try:
            wait_until_ready(url, server)
            enrol(url, images)
            rows = []
            for _ in track(range(options.rounds), description="measuring", transient=True):
                limit = bare_rate(probes, options.seconds, cores)
                loaded = load(url, folder, 16, options.seconds)
                bare = bare_latency(probes, options.seconds / 3, cores)
                single = load(url, folder, 1, options.seconds / 3)
                rows.append((limit, loaded, bare, single))
            memory = resident_mb(server.pid)
        finally:
            server.terminate()
            server.wait()
    report(rows, cores, len(images), memory)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    while True:
        if server.poll() is not None:
            sys.exit("The service did not start.")
        try:
            httpx.get(f"{url}/health/ready").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.05)


def enrol(url: str, images: list[bytes]) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for i, image in enumerate(track(images, description="enrolling", transient=True)):
            client.post(
                f"/persons/p{i}/faces?face=largest&on_duplicate=allow",
                content=image,
                headers={"Content-Type": "image/jpeg"},
            ).raise_for_status()


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(
    rows: list[tuple[float, dict[str, float], float, dict[str, float]]],
    cores: int,
    persons: int,
    memory: float,
) -> None:
    def median(values: list[float]) -> float:
        return float(np.median(values))

    ratio = median([loaded["rate"] / limit for limit, loaded, _, _ in rows])
    slower = median([single["p50"] / bare for _, _, bare, single in rows])
    table = Table(title=f"identify on {cores} cores, {persons} persons, medians of {len(rows)}")
    for column in ("what", "bare limit", "service", "ratio", "must be"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row(
        "images/s, 16 clients",
        f"{median([limit for limit, *_ in rows]):.1f}",
        f"{median([loaded['rate'] for _, loaded, _, _ in rows]):.1f}",
        f"{ratio:.3f}",
        ">= 0.90",
    )
    table.add_row(
        "p50 ms, 1 client",
        f"{median([bare for _, _, bare, _ in rows]):.1f}",
        f"{median([single['p50'] for *_, single in rows]):.1f}",
        f"{slower:.3f}",
        "<= 1.25",
    )
    console = Console()
    console.print(table)
    console.print(
        f"16 clients: p99 {median([loaded['p99'] for _, loaded, _, _ in rows]):.0f} ms, "
        f"{sum(loaded['errors'] for _, loaded, _, _ in rows):.0f} errors, wrk used "
        f"{median([loaded['share'] for _, loaded, _, _ in rows]):.1%} of one core; "
        f"the service's resident memory {memory:.0f} MB"
    )


if __name__ == "__main__":
    main()
