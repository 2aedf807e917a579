"""`maven.Stream` with `mini`, fed a clip at its own pace: latency of answers, CPU, peak memory.

python bench/live.py [--runs 3] [--seconds 30] [--runtime auto] [--json FILE]

A camera's thread pushes each frame at its time and a microphone's each piece of sound at its end.
The latency of an answer counts from the time of the newest frame that it rests on, which is when
that frame would leave a camera, to the return of the push that gave it: queues, waiting for the
other input and computing are all in it. Decoding the clip is not, but takes its share of the CPU.
A word is pushed every third of a second, so that all three modalities are answered for.
"""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import takewhile

import numpy as np

from machine import DATA, Report, arguments, spread
from maven import media
from maven.checkpoint import load
from maven.live import Stream
from maven.threads import ahead
from maven.transcript import Word

CLIP = "talk_long_71s_512.mp4"
PIECE = 512  # samples: 32 ms
LEAD_S = 0.5  # between the start of the threads and the first input


class Feeder:
    """Pushes into a stream at the times of a clip, and notes when answers come."""

    def __init__(self, stream: Stream, first_s: float) -> None:
        self.stream = stream
        self._zero_s = time.monotonic() + LEAD_S - first_s
        self.busy_s: list[float] = []  # of the pushes that answered
        self.answered_s: dict[float, float] = {}  # by tick, on the clip's clock

    def now_s(self) -> float:
        """Time on the clip's clock."""
        return time.monotonic() - self._zero_s

    def frames(self, frames: Iterable[media.Frame]) -> None:
        """Push frames, each at its time."""
        for frame in frames:
            time.sleep(max(0.0, frame.time_s - self.now_s()))
            began_s = self.now_s()
            self.stream.push_frame(frame.rgb, frame.time_s)
            self._note(began_s)

    def sound(self, sound: media.AudioBlock) -> None:
        """Push pieces of sound, each when it would have been heard."""
        for start in range(0, len(sound.samples), PIECE):
            piece = sound.samples[start : start + PIECE]
            time_s = sound.start_s + start / media.AUDIO_RATE_HZ
            time.sleep(max(0.0, time_s + len(piece) / media.AUDIO_RATE_HZ - self.now_s()))
            began_s = self.now_s()
            self.stream.push_audio(piece, time_s)
            self._note(began_s)

    def _note(self, began_s: float) -> None:
        answer, ended_s = self.stream.latest(), self.now_s()
        if answer is not None and answer.time_s not in self.answered_s:
            self.answered_s[answer.time_s] = ended_s
            self.busy_s.append(ended_s - began_s)


def run(stream: Stream, seconds: float) -> dict[str, float]:
    """Feed the first seconds of the clip once."""
    path = DATA / "clips" / CLIP
    times_s: list[float] = []

    def decoded() -> Iterator[media.Frame]:
        for frame in takewhile(lambda frame: frame.time_s < seconds, media.frames(path)):
            times_s.append(frame.time_s)
            yield frame

    block = media.read_audio(path)
    assert block is not None
    kept = round((seconds - block.start_s) * media.AUDIO_RATE_HZ)
    sound = media.AudioBlock(block.start_s, block.samples[:kept].copy())
    stream.push_words(
        Word("well" if k % 8 else "well.", k / 3, k / 3 + 0.3, k // 8, None)
        for k in range(round(3 * seconds))
    )
    feeder = Feeder(stream, min(block.start_s, 0.0))
    with closing(ahead(decoded())) as frames:
        threads = [
            threading.Thread(target=feeder.frames, args=(frames,)),
            threading.Thread(target=feeder.sound, args=(sound,)),
        ]
        began_s, cpu_s = time.monotonic(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began_s
    shown_s = np.array(times_s)
    latency_ms = [
        1e3 * (answered_s - float(shown_s[shown_s <= tick_s + 1e-6].max()))
        for tick_s, answered_s in feeder.answered_s.items()
        if tick_s >= shown_s[0]
    ]
    return {
        "ticks": len(latency_ms),
        "median_ms": statistics.median(latency_ms),
        "p95_ms": float(np.percentile(latency_ms, 95)),
        "max_ms": max(latency_ms),
        "busy_ms": 1e3 * statistics.median(feeder.busy_s),
        "cpu": cpu_s / (took_s - LEAD_S),
    }


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the clip")
    parser.add_argument("--model", default="mini", help="as for maven predict")
    parser.add_argument("--runtime", default="auto", help="as for maven predict")
    parser.add_argument("--threads", type=int, help="of one pass through a network")
    given = parser.parse_args()
    report = Report("maven.Stream", given.json)
    model = load(given.model, device="cpu", runtime=given.runtime, threads=given.threads)
    runs = [run(Stream(model), given.seconds) for _ in range(given.runs)]
    name = f"Live on {model.runtime}, {CLIP}, first {given.seconds:g} s"
    columns = "answers", "latency, ms: median", "95th percentile", "maximum"
    report.table(name, (*columns, "computing, ms", "cores busy", "peak memory, MB"))
    ticks, *latencies, busy, cpu = ([each[k] for each in runs] for k in runs[0])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.row(
        (
            spread(ticks, 0), *(spread(each, 0) for each in latencies),
            spread(busy, 0), spread(cpu, 2), f"{peak_mb:.0f}",
        ),
        clip=CLIP, runtime=model.runtime, runs=runs, peak_mb=peak_mb,
    )  # fmt: skip
    report.close()


if __name__ == "__main__":
    main()
