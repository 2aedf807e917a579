"""Where the time of one analysis goes: processor seconds of each stage, beside the wall clock.

python bench/stages.py [--runs 3] [--clip NAME] [--runtime auto] [--json FILE]

Stages run in threads, so their seconds add up to more than the wall clock. Each is measured where
it is called, on its own thread; what is left over is Python around them, and threads of torch.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import maven
from machine import DATA, Report, arguments, spread
from maven import inference, media, observe, pipeline
from maven.faces import track
from maven.faces.detect import CenterFace

CLIP = "talk_long_71s_512.mp4"


class Clock:
    """Adds up processor time of the calling thread, by stage; stages inside others count once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return call(*args, **kwargs)

        return run

    def drawn(self, stage: str, make: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same iterator, timed where it is asked for its next item."""

        def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = make(*args, **kwargs)
            while True:
                with self.stage(stage):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return run

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.thread_time()
        try:
            yield
        finally:
            self.seconds[name] += time.thread_time() - began


class Timed:
    """An object that is called, with its call timed and all else as it is."""

    def __init__(self, inner: Any, call: Callable[..., Any]) -> None:
        self._inner, self._call = inner, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def analyse(clip: str, runtime: str, **how: Any) -> tuple[float, float, dict[str, float]]:
    """Analyse once with stages timed: wall clock, processor time of the process, of each stage.

    `how`: as for `maven.load`.
    """
    clock = Clock()
    model = maven.load("mini", runtime=runtime, **how)
    encoders = type(model.encoders)(
        *(
            Timed(encoder, clock.timed(name, encoder))
            for encoder, name in zip(
                vars(model.encoders).values(), ("face network", "voice network", "words"),
                strict=True,
            )
        )
    )  # fmt: skip
    model = type(model)(**(vars(model) | {"encoders": encoders}))
    detector = CenterFace()
    kept = media.frames, media.audio_blocks, observe.crop, track.thumbnail, observe.SpeechDetector
    media.frames = clock.drawn("decode pictures", media.frames)  # type: ignore[assignment]
    media.audio_blocks = clock.drawn("decode sound", media.audio_blocks)  # type: ignore[assignment]
    observe.crop = clock.timed("crop", observe.crop)  # type: ignore[assignment]
    track.thumbnail = clock.timed("thumbnail", track.thumbnail)  # type: ignore[assignment]
    pipeline_infer = inference.infer
    inference.infer = clock.timed("fusion network", inference.infer)  # type: ignore[assignment]
    speech = observe.SpeechDetector.push
    observe.SpeechDetector.push = clock.timed("speech", speech)  # type: ignore[method-assign]
    timed = Timed(detector, clock.timed("detect, whole frame", detector))
    timed.near = clock.timed("detect, near a face", detector.near)  # type: ignore[attr-defined]
    try:
        began, cpu = time.perf_counter(), time.process_time()
        analysis = pipeline.analyze(
            DATA / "clips" / clip, model, asr="none", offline=True, detector=timed
        )
        with clock.stage("table"), tempfile.TemporaryDirectory() as folder:
            analysis.save(folder)
        return time.perf_counter() - began, time.process_time() - cpu, dict(clock.seconds)
    finally:
        media.frames, media.audio_blocks, observe.crop, track.thumbnail, _ = kept  # type: ignore[misc, assignment]
        observe.SpeechDetector.push = speech  # type: ignore[method-assign]
        inference.infer = pipeline_infer


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--clip", default=CLIP)
    parser.add_argument("--runtime", default="auto", help="as for maven predict")
    given = parser.parse_args()
    report = Report(f"Stages of {given.clip}", given.json)
    analyse(given.clip, given.runtime)
    runs = [analyse(given.clip, given.runtime) for _ in range(given.runs)]
    walls, cpus, stages = zip(*runs, strict=True)
    total = statistics.median(cpus)
    report.table("Processor time by stage", ("stage", "s", "share"))
    names = sorted(stages[0], key=lambda name: -stages[0][name])
    for name in names:
        seconds = [run[name] for run in stages]
        share = statistics.median(seconds) / total
        report.row((name, spread(seconds, 2), f"{share:.0%}"), stage=name, seconds=seconds)
    rest = [cpu - sum(run.values()) for cpu, run in zip(cpus, stages, strict=True)]
    share = statistics.median(rest) / total
    report.row(("the rest", spread(rest, 2), f"{share:.0%}"), stage="rest", seconds=rest)
    report.row(("all", spread(cpus, 2), "100%"), stage="all", seconds=cpus)
    report.say(f"Wall clock: {spread(walls, 2)} s", wall_s=walls)
    report.close()


if __name__ == "__main__":
    main()
