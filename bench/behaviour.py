"""How a model behaves on real clips: orders, rest, disturbances, groups; what is asked, and met.

python bench/behaviour.py [--model mini] [--sources DATA] [--work runs/mini]

Every answer is that of `maven.analyze` without speech recognition. The clips are in DATA/clips, the
voices in DATA/speech. WORK is the folder of the recipe: its encoders trained without some speakers,
and its aligned faces, are used where they are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, reduce
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import numpy.typing as npt

import groups
import maven
import perturb
from machine import DATA, describe
from maven import media
from maven.checkpoint import Model
from maven.config import MODALITIES
from maven.faces.detect import CenterFace
from maven.features import Features
from maven.inference import infer
from maven.pipeline import Answered

Floats = npt.NDArray[np.float64]

# What each silent clip shows: the signs of (valence, arousal); 0 where its name does not say.
INTENDED = {
    "silent_happy_256": (1, 1),
    "silent_happyenglish_clip1": (1, 1),
    "silent_surprisegirl_clip2": (1, 1),
    "silent_nice_clip1": (1, 0),
    "silent_fear_256": (-1, 1),
    "silent_furious_talk1_clip1": (-1, 1),
    "silent_sad_emotion_clip1": (-1, -1),
    "silent_sadgirl_clip1": (-1, -1),
}
# No clip shows a still neutral face; in these frames the face is at rest.
STILLS = (
    ("single_face_short.mp4", 0),
    ("face_then_no_face.mov", 16),
    ("grid_s1_bbaf2n.mpg", 0),
    ("grid_s1_srbu6n.mpg", 0),
    ("expressive_audio_512.mp4", 0),
)
STILL_S, STILL_HZ = 3, 25
DISTURBED = (
    "silent_happy_256.mp4", "silent_furious_talk1_clip1.mp4", "silent_sadgirl_clip1.mp4",
    "silent_surprisegirl_clip2.mp4", "single_face_short.mp4", "grid_s1_bbaf2n.mpg",
    "talk_face1_22fps.mp4", "talk_face3_590.mp4", "talk_face5_524.mp4",
    "talk_noisy_restaurant_720p.mp4",
)  # fmt: skip
JITTER, QUALITY, GAIN_DB = 0.05, 50, 6.0
AXES = ("valence", "arousal")


@dataclass(frozen=True)
class Row:
    """What is asked, what was measured, and whether it is met; None where nothing is asked."""

    asked: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Section:
    """Rows of the table, and what their figures are made of."""

    rows: list[Row]
    details: list[str]


class Bench:
    """A model, and the answers that it has given."""

    def __init__(self, model: Model, sources: Path, work: Path) -> None:
        self.model, self.sources, self.work = model, sources, work
        self.detector = CenterFace()
        self.plain = cache(self._plain)

    def clip(self, name: str) -> Path:
        """Find a clip by the name of its file, or by its stem alone."""
        folder = self.sources / "clips"
        return next(p for p in sorted(folder.glob(f"{name}*")) if p.suffix != ".align")

    def answers(self, path: Path, **options: Any) -> Floats:
        """Valence and arousal (t, 2) of a clip's rows; NaN where nothing was observed."""
        options = {"detector": self.detector} | options
        frames = maven.analyze(path, self.model, asr="none", offline=True, **options).frames
        return np.asarray(frames[list(AXES)], np.float64)

    def _plain(self, path: Path) -> tuple[Floats, Features]:
        found: list[Answered] = []
        va = self.answers(path, answered=found.append)
        return va, found[0].features


def orders(intended: Mapping[str, tuple[int, int]]) -> Iterator[tuple[int, str, str]]:
    """Yield (axis, higher clip, lower clip) of all pairs whose quadrants differ in that axis."""
    for one, other in permutations(intended, 2):
        for axis in range(2):
            if intended[one][axis] > 0 > intended[other][axis]:
                yield axis, one, other


def order_section(bench: Bench) -> Section:
    """Silent expressive clips against each other."""
    middles, means = {}, {}
    details = ["| silent clip | shows (valence, arousal) | median | mean |", "|---|---|---|---|"]
    for name, signs in INTENDED.items():
        va, _ = bench.plain(bench.clip(name))
        middles[name], means[name] = np.nanmedian(va, 0), np.nanmean(va, 0)
        shows = ", ".join("+?-"[1 - sign] for sign in signs)
        details.append(f"| {name} | {shows} | {pair(middles[name])} | {pair(means[name])} |")
    asked = list(orders(INTENDED))
    wrong = {
        kind: [o for o in asked if not by[o[1]][o[0]] > by[o[2]][o[0]]]
        for kind, by in (("medians", middles), ("means", means))
    }
    for kind, by in (("medians", middles), ("means", means)):
        details += [
            f"- wrong by {kind}: {AXES[k]} of {one} ({by[one][k]:+.2f}) above that of {other}"
            f" ({by[other][k]:+.2f})"
            for k, one, other in wrong[kind]
        ]
    margin, (axis, one, other) = min((middles[o[1]][o[0]] - middles[o[2]][o[0]], o) for o in asked)
    right = len(asked) - len(wrong["medians"])
    measured = (
        f"{right} of {len(asked)} by medians, {len(asked) - len(wrong['means'])} by means; least"
        f" margin {margin:+.2f}, {AXES[axis]} of {one} above {other}"
    )
    row = Row("silent clips of different quadrants: order right", measured, not wrong["medians"])
    return Section([row], details)


def write_still(source: Path, number: int, target: Path) -> None:
    """Write one frame of a video, counted from 0, for `STILL_S` seconds."""
    frame = next(frame for frame in media.frames(source) if frame.index == number)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=STILL_HZ, options={"crf": "15"})
        stream.height, stream.width = frame.rgb.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(STILL_S * STILL_HZ):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.rgb, "rgb24")))
        container.mux(stream.encode(None))


def rest_section(bench: Bench) -> Section:
    """A neutral face that does not move."""
    details = ["| still neutral face | answer | from the origin | face encoder alone |"]
    details += ["|---|---|---|---|"]
    lengths = {}
    with TemporaryDirectory() as folder:
        for name, number in STILLS:
            path = Path(folder) / f"{Path(name).stem}.mp4"
            write_still(bench.clip(name), number, path)
            va, features = bench.plain(path)
            mean, own = np.nanmean(va, 0), own_answer(features, "visual")
            lengths[name] = float(np.hypot(*mean))
            details.append(
                f"| {name}, frame {number} | {pair(mean)} | {lengths[name]:.2f} | {pair(own)} |"
            )
    faces = bench.work / "faces.npz"
    if faces.is_file():
        with np.load(faces) as content:
            neutral = (content["splits"] == "val") & (content["emotions"] == "neutral")
            crops = content["crops"][neutral]
        own = bench.model.encoders.visual(np.repeat(crops[..., None], 3, 3))[:, :2]
        details.append(
            f"| mean of {len(crops)} neutral faces, FER2013 PublicTest | | | {pair(own.mean(0))} |"
        )
    worst = max(lengths, key=lengths.__getitem__)
    measured = f"{min(lengths.values()):.2f} to {lengths[worst]:.2f} ({worst})"
    asked = f"a still neutral face within 0.2 of the origin ({len(STILLS)} stills of 3 people)"
    return Section([Row(asked, measured, lengths[worst] <= 0.2)], details)


def own_answer(features: Features, modality: str) -> Floats:
    """Mean (2,) of an embedded encoder's own valence and arousal."""
    seen = features.values[modality][features.observed[modality]]
    return np.asarray(seen[:, :2].mean(0), np.float64)


def alone(bench: Bench, features: Features, modality: str) -> Floats:
    """Mean answer (2,) from one modality, where it was observed."""
    others = [m for m in MODALITIES if m != modality]
    only = reduce(Features.without, others, features)
    va = infer(bench.model.network, only, bench.model.card.smoothing_s).va
    return np.asarray(va[only.observed[modality]].mean(0))


def speech_section(bench: Bench) -> Section:
    """Neutral sentences of GRID."""
    titles = ("all", "face only", "voice only", "words only", "face encoder", "voice encoder")
    details = [f"| neutral speech | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    means = []
    for path in sorted((bench.sources / "clips").glob("grid_*.mpg")):
        va, features = bench.plain(path)
        own = (own_answer(features, m) for m in ("visual", "audio"))
        single = (alone(bench, features, m) for m in MODALITIES)
        means.append([np.nanmean(va, 0), *single, *own])
        details.append(f"| {path.name} | {' | '.join(map(pair, means[-1]))} |")
    overall = np.mean(means, 0)
    details.append(f"| mean | {' | '.join(map(pair, overall))} |")
    far = np.hypot(*np.array(means)[:, 0].T)
    length = float(np.hypot(*overall[0]))
    asked = f"neutral speech ({len(means)} clips of GRID) within 0.25 of the origin"
    return Section(
        [
            Row(f"{asked}, in the mean", f"{length:.2f} ({pair(overall[0])})", length <= 0.25),
            Row(f"{asked}, each", f"{far.min():.2f} to {far.max():.2f}", bool(far.max() <= 0.25)),
        ],
        details,
    )


def rms(one: Floats, other: Floats) -> tuple[float, int]:
    """Root mean square over rows and axes of the change (t, 2), and rows answered in one only."""
    change = one - other
    known = np.isfinite(change).all(1)
    lost = int((np.isfinite(one).all(1) != np.isfinite(other).all(1)).sum())
    return float(np.sqrt((change[known] ** 2).mean())), lost


def disturbances(bench: Bench) -> dict[str, tuple[float | None, Callable[[Path, int], Floats]]]:
    """What is done: its name, the RMS allowed (None: not asked), and the answers under it."""

    def jittered(constant: bool) -> Callable[[Path, int], Floats]:
        def run(path: Path, seed: int) -> Floats:
            detector = perturb.Jittered(bench.detector, JITTER, seed, constant=constant)
            return bench.answers(path, detector=detector)

        return run

    def within(*contexts: Callable[[], Any]) -> Callable[[Path, int], Floats]:
        def run(path: Path, _: int) -> Floats:
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                return bench.answers(path)

        return run

    return {
        "boxes moved and scaled by up to 5 %, each detection anew": (0.05, jittered(False)),
        "the same, one draw a clip": (None, jittered(True)),
        "frames as JPEG of quality 50": (
            0.05, within(lambda: perturb.changed_pictures(perturb.jpeg(QUALITY)))),
        "frames mirrored": (0.03, within(lambda: perturb.changed_pictures(perturb.mirrored))),
        "sound +6 dB": (0.05, within(lambda: perturb.changed_gain(GAIN_DB))),
        "sound -6 dB": (0.05, within(lambda: perturb.changed_gain(-GAIN_DB))),
    }  # fmt: skip


def disturbance_section(bench: Bench) -> Section:
    """What must not move the answer, on clips with a face."""
    kinds = disturbances(bench)
    changes: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    worst: dict[str, tuple[float, str]] = dict.fromkeys(kinds, (0.0, ""))
    details = [f"| RMS change | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for seed, name in enumerate(DISTURBED):
        path = bench.clip(name)
        before, features = bench.plain(path)
        cells = []
        for kind, (_, run) in kinds.items():
            if kind.startswith("sound") and not features.observed["audio"].any():
                cells.append("")
                continue
            after = run(path, seed)
            moved, lost = rms(before, after)
            changes[kind].append(after - before)
            worst[kind] = max(worst[kind], (moved, name))
            cells.append(f"{moved:.3f}" + (f" ({lost} rows lost or won)" if lost else ""))
        details.append(f"| {name} | {' | '.join(cells)} |")
        tell(f"disturbed {name}")
    rows, cells = [], []
    for kind, (allowed, _) in kinds.items():
        joined = np.concatenate(changes[kind])
        total, _ = rms(joined, np.zeros_like(joined))
        cells.append(f"{total:.3f}")
        measured = (
            f"{total:.3f} over {len(changes[kind])} clips; each up to {worst[kind][0]:.3f}"
            f" ({worst[kind][1]})"
        )
        limit = "not asked" if allowed is None else f"below {allowed} RMS"
        met = None if allowed is None else worst[kind][0] < allowed
        rows.append(Row(f"{kind}: {limit}", measured, met))
    details.append(f"| all | {' | '.join(cells)} |")
    return Section(rows, details)


def group_section(bench: Bench) -> Section:
    """Neutral voices of women and men."""
    voices, note = groups.listen_to(bench.model, bench.sources, bench.work)
    parts = {
        "RAVDESS actors 17-20": [v for v in voices if (v.corpus, v.split) == ("ravdess", "val")],
        "RAVDESS, all actors": [v for v in voices if v.corpus == "ravdess"],
        "nEMO": [v for v in voices if v.corpus == "nemo"],
    }
    rows = []
    details = [
        "| neutral voices | answer of | women | men | difference | standard error |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in parts.items():
        if min(sum(v.sex == sex for v in part) for sex in ("female", "male")) < 2:
            continue
        for what, title in (("fused", "the model, voice only"), ("encoder", "the voice encoder")):
            found = groups.compared(part, what)
            women, men = found.speakers
            details.append(
                f"| {name} ({women} women, {men} men) | {title} | {pair(found.female)} |"
                f" {pair(found.male)} | {pair(found.value)} | {pair(found.error, '.3f')} |"
            )
            if what == "fused":
                measured = f"{pair(found.value, '+.3f')}, standard error {pair(found.error, '.3f')}"
                asked = f"neutral voices, {name}: women minus men below 0.05"
                rows.append(Row(asked, measured, bool((np.abs(found.value) < 0.05).all())))
    details.append(f"- {note}; at most {groups.CLIPS} clips a speaker")
    rows.append(Row("neutral faces by groups", "FER2013 names no groups: not measured", None))
    return Section(rows, details)


def pair(va: Floats, form: str = "+.2f") -> str:
    """Write (valence, arousal)."""
    return ", ".join(format(x, form) for x in va)


def tell(what: str) -> None:
    """Say on stderr how far it is."""
    print(what, file=sys.stderr, flush=True)


SECTIONS = (order_section, rest_section, speech_section, disturbance_section, group_section)


def main() -> None:
    """Print what the figures are made of, section by section, and the table of what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="mini, or a model folder")
    parser.add_argument("--sources", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("runs/mini"))
    given = parser.parse_args()
    print(describe())
    bench = Bench(maven.load(given.model, device="cpu", offline=True), given.sources, given.work)
    print(f"Model {bench.model.card.name}, weights {bench.model.weights_hash[:12]}")
    rows = []
    for section in SECTIONS:
        done = section(bench)
        rows += done.rows
        print("", *done.details, sep="\n", flush=True)
    print("\n| what is asked | measured | met |\n|---|---|---|")
    for row in rows:
        met = {True: "yes", False: "no", None: ""}[row.met]
        print(f"| {row.asked} | {row.measured} | {met} |")


if __name__ == "__main__":
    main()
