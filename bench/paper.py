"""The paper's encoders at full size on real clips, beside the published way, in the same run.

python bench/paper.py [--seconds 10] [--runs 3] [--clips NAME ...] [--json FILE]

Weights are random: they cost what trained ones do. Each run does, one after the other, on the first
`--seconds` of a clip (0: all of it):

- **published**: `published.py`, on the face crops that ours cuts out, given to it in memory;
- **ours**: `maven.analyze` from the media file to the table: decoding, detection, tracking, crops,
  the encoders, the fusion network. Swin reads a crop for each cell of the 10 Hz grid, which is what
  the network sees; `every frame` encodes the crops of all frames, as the published way does;
- **encoders alone**: the same crops, sound and words as `ours`, in memory: the limit.

Loading networks is outside all times. All faces on screen are encoded in all ways.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import logging

import maven
from machine import DATA, Report, arguments, spread
from maven import media
from maven.checkpoint import Model, ModelCard, load, save
from maven.config import preset
from maven.encoders.base import Encoders, VisualEncoder, encode_audio, encode_crops, encode_words
from maven.encoders.build import EncoderSpec
from maven.faces.crop import crop
from maven.faces.detect import CenterFace
from maven.faces.track import track_faces
from maven.model import Maven
from maven.transcript import Word, read_transcript
from packets import cut
from published import Published, Segment

CLIPS = ("talk_long_71s_512.mp4", "interview_two_faces_720p.mp4")
ENCODERS = {"visual": "swin", "audio": "hubert", "text": "roberta"}
PUBLISHED, OURS, EVERY_FRAME = "published", "ours", "ours, every frame"
ALONE = "encoders alone, on what `ours` encodes"
SEGMENT_S = 5.0  # a sentence
SHORTEST_S = 1.0  # what is left over belongs to the segment before
TEXT = (
    "I was really glad that you came to see us here today after all.",
    "Nobody had told me anything about it until the very last moment.",
    "Well then let us sit down and talk about what happened that night.",
)


def save_model(folder: Path) -> Path:
    """Write a model of the default preset on the paper's encoders, with random weights."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import (
        HubertConfig,
        HubertModel,
        RobertaConfig,
        RobertaModel,
        SwinConfig,
        SwinModel,
    )

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=224, patch_size=4, window_size=7, embed_dim=128,
        depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32],
    )  # fmt: skip
    roberta = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )
    SwinModel(swin).save_pretrained(folder / "swin")
    HubertModel(HubertConfig()).save_pretrained(folder / "hubert")
    RobertaModel(roberta, add_pooling_layer=False).save_pretrained(folder / "roberta")
    (folder / "hubert" / "preprocessor_config.json").write_text('{"do_normalize": true}')
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(TEXT, vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder / "roberta"))
    config = preset("default", {"visual": 1024, "audio": 768, "text": 768})
    specs = {modality: EncoderSpec(kind, kind) for modality, kind in ENCODERS.items()}
    save(Maven(config), ModelCard(folder.name, config, specs), folder)
    return folder


def write_transcript(path: Path, length_s: float) -> None:
    """Write sentences, one in `SEGMENT_S`, as a subtitle file."""
    starts = np.arange(0, length_s, SEGMENT_S)
    cues = [
        f"{k + 1}\n{_srt(start_s)} --> {_srt(min(start_s + SEGMENT_S, length_s) - 0.1)}\n"
        f"{TEXT[k % len(TEXT)]}\n"
        for k, start_s in enumerate(starts)
        if length_s - start_s > SHORTEST_S
    ]
    path.write_text("\n".join(cues))


def _srt(time_s: float) -> str:
    minutes, rest_s = divmod(time_s, 60)
    return f"00:{int(minutes):02d}:{rest_s:06.3f}".replace(".", ",")


class Watched:
    """A visual encoder at a rate of its own, which counts the crops that it gets."""

    def __init__(self, inner: VisualEncoder, rate_hz: float | None) -> None:
        self._inner, self.rate_hz, self.crops = inner, rate_hz, 0

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode crops."""
        self.crops += len(crops)
        return self._inner(crops)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass(frozen=True)
class Material:
    """A clip and what is in it.

    Attributes:
        clip: the file, with a transcript of its name beside it.
        frames: of the video.
        crops: (n, side, side, 3): all faces of all frames, in order.
        seen_s: (n,) when.
        sound: the whole.
        words: of the transcript.
    """

    clip: Path
    frames: int
    crops: npt.NDArray[np.uint8]
    seen_s: npt.NDArray[np.float64]
    sound: media.AudioBlock
    words: tuple[Word, ...]

    def segments(self) -> Iterator[Segment]:
        """What the published way gets."""
        size = self.sound.samples.size

        def sample(time_s: float) -> int:
            return int(min(max(0.0, (time_s - self.sound.start_s) * media.AUDIO_RATE_HZ), size))

        last_s = max(self.seen_s[-1], self.sound.start_s + size / media.AUDIO_RATE_HZ - SHORTEST_S)
        for start_s, stop_s in pairwise((*np.arange(0, last_s, SEGMENT_S), np.inf)):
            within = (self.seen_s >= start_s) & (self.seen_s < stop_s)
            said = [word.text for word in self.words if start_s <= word.start_s < stop_s]
            yield Segment(
                self.crops[within],
                self.sound.samples[sample(start_s) : sample(stop_s)],
                " ".join(said),
            )


def prepare(clip: Path, side_px: int, detector: CenterFace) -> Material:
    """Decode a clip, cut out all faces of all frames, write a transcript beside it."""
    crops, seen_s, frames = [], [], 0
    for tracked in track_faces(media.frames(clip), detector):
        frames += 1
        for face in tracked.faces:
            crops.append(crop(tracked.frame.rgb, face.landmarks_px, side_px))
            seen_s.append(tracked.frame.time_s)
    sound = media.read_audio(clip)
    assert sound is not None, f"{clip.name} has no sound"
    assert crops, f"{clip.name} has no face"
    path = clip.with_suffix(".srt")
    write_transcript(path, sound.samples.size / media.AUDIO_RATE_HZ)
    words = read_transcript(path).words
    return Material(clip, frames, np.stack(crops), np.array(seen_s), sound, words)


def measure(
    material: Material, model: Model, published: Published, detector: CenterFace
) -> dict[str, dict[str, float]]:
    """Run every way once: seconds, and crops encoded."""
    segments, encoders = list(material.segments()), model.encoders
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures[PUBLISHED] = timed(lambda: published(segments, Path(folder)))
    figures[PUBLISHED]["crops"] = len(material.crops)
    for name, rate_hz in ((OURS, encoders.visual.rate_hz), (EVERY_FRAME, None)):
        visual = Watched(encoders.visual, rate_hz)
        watched = replace(model, encoders=replace(encoders, visual=visual))
        figures[name] = timed(partial(analyse, material.clip, watched, detector))
        figures[name]["crops"] = visual.crops
    count = int(figures[OURS]["crops"])
    some = material.crops[np.resize(np.arange(len(material.crops)), count)]
    figures[ALONE] = timed(lambda: alone(some, material, encoders))
    figures[ALONE]["crops"] = count
    return figures


def analyse(clip: Path, model: Model, detector: CenterFace) -> None:
    """Analyse a clip as `maven predict` does, up to the table."""
    assert len(maven.analyze(clip, model, asr="none", offline=True, detector=detector).frames)


def alone(crops: npt.NDArray[np.uint8], material: Material, encoders: Encoders) -> None:
    """Encode crops, and the sound and the words of a clip, all in memory."""
    encode_crops(iter(crops), encoders.visual)
    encode_audio([material.sound], encoders.audio)
    encode_words([word.text for word in material.words], encoders.text)


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that a call takes, by the clock and of the processors."""
    began, cpu_began = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}


def tabulate(report: Report, material: Material, runs: list[dict[str, dict[str, float]]]) -> None:
    """Print the table of a clip and what follows from it."""
    clip, frames = material.clip.name, material.frames
    report.table(
        f"{clip}: {frames} frames, {len(material.crops)} crops",
        ("way", "time, s", "CPU, s", "crops encoded", "frames a second", "crops a second"),
    )
    median = {}
    for name in runs[0]:
        seconds, cpu_s = ([run[name][key] for run in runs] for key in ("seconds", "cpu_s"))
        crops = int(runs[0][name]["crops"])
        median[name] = statistics.median(seconds)
        rates = [[count / s for s in seconds] for count in (frames, crops)]
        report.row(
            (name, spread(seconds), spread(cpu_s), crops, *(spread(rate, 2) for rate in rates)),
            clip=clip, way=name, frames=frames, crops=crops, seconds=seconds, cpu_s=cpu_s,
        )  # fmt: skip
    ratio, every = (median[PUBLISHED] / median[name] for name in (OURS, EVERY_FRAME))
    share = statistics.median(run[ALONE]["seconds"] / run[OURS]["seconds"] for run in runs)
    report.say(
        f"Frames of video a second, ours against published: {ratio:.1f} x; {every:.1f} x where ours"
        f" encodes every frame too. The encoders alone take {share:.0%} of the end to end time.",
        **{clip: {"ratio": ratio, "ratio_every_frame": every, "share_alone": share}},
    )


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip; 0: all")
    parser.add_argument("--clips", nargs="+", default=CLIPS, metavar="NAME")
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    report = Report("The paper's encoders", given.json)
    report.say(
        f"transformers {version('transformers')}, {torch.get_num_threads()} threads; random"
        " weights at full size, loaded beforehand; the published way gets the same face crops in"
        " memory, and no decoding or detection is counted for it"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = save_model(Path(name) / "paper")
        model = load(folder, offline=True)
        published = Published(*(folder / kind for kind in ENCODERS.values()))
        detector = CenterFace()
        for clip in given.clips:
            target = Path(name) / clip
            cut(DATA / "clips" / clip, target, given.seconds)
            material = prepare(target, model.encoders.visual.size_px, detector)
            alone(material.crops[:8], material, model.encoders)  # the first pass of all is slower
            runs = [measure(material, model, published, detector) for _ in range(given.runs)]
            tabulate(report, material, runs)
    report.close()


if __name__ == "__main__":
    main()
