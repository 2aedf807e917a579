"""Media -> what drove its answer: the strongest moments, face, voice, words, and which words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maven import media
from maven.checkpoint import Model, load
from maven.config import MODALITIES
from maven.drivers import (
    AXES,
    Looks,
    Moment,
    looks,
    moment,
    nearest,
    strongest,
    word_effects,
)
from maven.files import whole
from maven.pipeline import Analysis, Answered, Settings, analyze, results_stem
from maven.render.tables import people
from maven.timeline import Times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maven.faces.detect import FaceDetector
    from maven.model import Maven
    from maven.observe import Progress
    from maven.render.explanation import Scene
    from maven.transcribe import Transcriber

MOMENTS = 3
SAME_S = 0.5  # a moment this near to the one that was asked for gives way to it
OUTSIDE_S = 0.5  # a time so little before the first or after the last row is taken for that row


class ExplanationError(Exception):
    """What was asked for cannot be explained; the message is one line."""


@dataclass(frozen=True)
class Explanation:
    """What drove the answer for the person on screen most, or for the voice where no face was seen.

    Attributes:
        analysis: the answer.
        person: as in the subtitles and pictures.
        contributions: (t, 3, 2) of face, voice and words to (valence, arousal) at each row of
            `analysis.frames`; they sum to the answer, NaN where there is none.
        moments: the strongest first; after them the one that was asked for, if it is none of them.
        chosen: the moment whose attention `looks` holds; both None where there is no answer.
        looks: where the network looks then; None as well where it runs without torch.
    """

    analysis: Analysis
    person: str
    contributions: Times
    moments: tuple[Moment, ...]
    chosen: Moment | None
    looks: Looks | None

    def plot(self, path: Path | str | None = None) -> Figure:
        """Draw time course, contributions, moments and attention, to a PNG when `path` is given."""
        from maven.render.explanation import draw

        return draw(self.scene(), None if path is None else Path(path))

    def scene(self) -> Scene:
        """What is drawn and printed."""
        from maven.render.explanation import Scene

        return Scene(
            self.analysis.media.path.name,
            self.person,
            self.analysis.frames,
            self.contributions,
            self.moments,
            self.chosen,
            self.looks,
            self.analysis.transcript.words,
            self.analysis.notes,
        )

    def record(self) -> dict[str, Any]:
        """Everything as plain values: moments, words, contributions, attention, provenance."""
        rows = self.analysis.frames
        known = np.flatnonzero(np.isfinite(self.contributions[:, 0, 0]))
        return {
            "provenance": self.analysis.provenance,
            "person": self.person,
            "notes": list(self.analysis.notes),
            "moments": [asdict(m) for m in self.moments],
            "attention": None if self.looks is None else _attention(self.looks),
            "contributions": {
                "time_s": _rounded(rows["time_s"].to_numpy(np.float64)[known]),
                **{
                    m: {
                        axis: _rounded(self.contributions[known, k, j])
                        for j, axis in enumerate(AXES)
                    }
                    for k, m in enumerate(MODALITIES)
                },
            },
        }

    def save(self, folder: Path | str, stem: str | None = None) -> list[Path]:
        """Write `STEM.explain.png` and `STEM.explain.json` into a folder; return the files."""
        import json

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        stem = stem or results_stem(self.analysis.media.path, target)
        picture, record = (target / f"{stem}.explain.{ending}" for ending in ("png", "json"))
        self.plot(picture)
        with whole(record) as part:
            text = json.dumps(self.record(), allow_nan=False, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8", errors="replace")
        return [picture, record]


def explain(
    path: Path | str,
    model: Model | str | Path = "mini",
    settings: Settings | None = None,
    *,
    moments: int = MOMENTS,
    at_s: float | None = None,
    device: str = "auto",
    detector: FaceDetector | None = None,
    transcriber: Transcriber | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Analyse a media file as `analyze` does, and say what drove the answer.

    Args:
        path, model, settings, device, detector, transcriber, progress, options: as for `analyze`;
            one person is explained, the one on screen most.
        moments: how many of the strongest moments, 1 or more.
        at_s: the moment whose attention is read; by default the strongest.

    Raises:
        ExplanationError: `at_s` lies outside the clip.
        ValueError: no moments are asked for, or other people.
    """
    settings = settings or Settings(**options)
    if moments < 1 or settings.faces != "main":
        raise ValueError(f"moments is {moments}, faces {settings.faces!r}: need 1 or more, 'main'")
    info = media.probe(path)
    if at_s is not None and info.duration_s is not None:
        _check(at_s, info.start_s, info.start_s + info.duration_s)
    if isinstance(model, str | Path):
        runtime = "torch" if find_spec("torch") else "auto"
        model = load(model, device=device, offline=settings.offline, runtime=runtime)
    kept: list[Answered] = []
    analysis = analyze(
        path, model, settings, detector=detector, transcriber=transcriber, progress=progress,
        answered=kept.append,
    )  # fmt: skip
    (answered,) = kept
    rows = analysis.frames
    ((person, _),) = people(rows)
    if at_s is not None:
        _check(at_s, float(rows["time_s"].iloc[0]), float(rows["time_s"].iloc[-1]))
    wanted = strongest(rows, moments)
    at = nearest(rows, at_s) if at_s is not None else (wanted[0] if wanted else None)
    if at is not None and at not in wanted:
        at_row_s = float(rows["time_s"].iloc[at])
        wanted = [k for k in wanted if abs(rows["time_s"].iloc[k] - at_row_s) > SAME_S] + [at]
    words, smoothing_s = analysis.transcript.words, model.card.smoothing_s
    found = []
    for number, row in enumerate(wanted):
        time_s = float(rows["time_s"].iloc[row])
        effects = word_effects(
            model.network, answered.features, words, model.encoders.text, time_s, smoothing_s
        )
        found.append(moment(rows, answered.series, row, words, effects))
        if progress is not None:
            progress("reasons", number + 1, len(wanted))
    known = rows["valence"].notna().to_numpy(bool)
    chosen = None if at is None else found[wanted.index(at)]
    looked = None
    if chosen is not None and model.runtime == "torch":
        looked = looks(cast("Maven", model.network), answered.features, chosen.time_s)
    elif chosen is not None:
        note = "where the network looks is not drawn: that needs the runtime torch"
        analysis = replace(analysis, notes=(*analysis.notes, note))
    return Explanation(
        analysis,
        person,
        np.where(known[:, None, None], answered.series.contributions, np.nan),
        tuple(found),
        chosen,
        looked,
    )


def _check(at_s: float, first_s: float, last_s: float) -> None:
    if not first_s - OUTSIDE_S <= at_s <= last_s + OUTSIDE_S:
        raise ExplanationError(
            f"there is nothing at {at_s:g} s: the clip has {first_s:.2f} to {last_s:.2f} s"
        )


def _attention(seen: Looks) -> dict[str, Any]:
    return {
        "time_s": seen.time_s,
        "around_s": _rounded(seen.around_s),
        "weights": {f"{to} at {of}": _rounded(w) for (to, of), w in seen.weights.items()},
        "observed": {m: mask.tolist() for m, mask in seen.observed.items()},
    }


def _rounded(values: Times) -> list[float]:
    return [round(float(v), 6) for v in values]
