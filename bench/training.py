"""Frames a second of training on features: our loop beside one that follows the published one.

python bench/training.py [--rounds 3] [--seconds 10] [--videos 4] [--length 157] [--batch 8]

Both loops see the same videos of random features, as wide as the paper's encoders give them, with
labels at 30 Hz. The published one has them as it does: three tensors and a text file a sentence;
ours as `maven features` writes them. Counted are video frames with a valid label, by the seconds
from opening a file to the optimiser's step; files come from the system's cache. Start-up, warm-up
and validation are left out. The rows take turns, round after round: a ratio is taken within one.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import maven
from machine import describe
from maven.attention import Attention, Nearness
from maven.config import MODALITIES, preset
from maven.datasets.clips import Batch, Windows, load_clips, moment_sample, split_clips
from maven.losses import polar_target
from maven.metrics import valid_labels
from maven.model import Maven, read_head
from maven.store import ClipKeys, Manifest, Store, key, words_arrays, write_manifest
from maven.train import TrainConfig, launch, train
from maven.transcript import Word

FRAME_HZ, VOICE_HZ = 30, 50
SENTENCE_S, WORD_S = (2.0, 6.0), 0.4
INVALID_SHARE = 0.03
VAL_S, WARM_S = 10.0, 2.0
WIDTHS = {"visual": 1024, "audio": 768, "text": 768}
FILES = {"visual": "frames", "audio": "audio", "text": "transcript"}  # <name>_embedding.pt

ROWS = {
    "A": "published, `reference-mlp`",
    "B": "published, `reference-beit`",
    "C": "published, `default` at 30 Hz",
    "D": "ours, `default` at 10 Hz",
    "E": "ours, `default` at 30 Hz",
}
RATIOS = ("D/A", "D/B", "D/C", "E/C")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Video:
    """A made-up talk: random features of n frames, m hops and w words, in sentences end to end."""

    name: str
    visual: Floats  # (n, d)
    audio: Floats  # (m, d)
    text: Floats  # (w, d)
    labels: Floats  # (n, 2) with three decimals, -5 where invalid
    bounds: tuple[int, ...]  # first frames of the sentences, and n
    words: tuple[Word, ...]  # w of them; `segment` numbers the sentence


def make_video(name: str, seconds: float, widths: dict[str, int], seed: int) -> Video:
    """Make a video up."""
    random = np.random.default_rng(seed)
    count, bounds = round(seconds * FRAME_HZ), [0]
    least, most = (round(s * FRAME_HZ) for s in SENTENCE_S)
    while (left := count - bounds[-1]) > most:
        bounds.append(bounds[-1] + int(random.integers(least, min(most, left - least) + 1)))
    bounds.append(count)
    words = [
        Word(f"word{k}", start_s, start_s + 0.8 * WORD_S, k, None)
        for k, (first, stop) in enumerate(itertools.pairwise(bounds))
        for start_s in np.arange(first / FRAME_HZ, stop / FRAME_HZ - WORD_S, WORD_S).tolist()
    ]
    sizes = {"visual": count, "audio": round(seconds * VOICE_HZ), "text": len(words)}
    values = {m: random.normal(size=(sizes[m], widths[m])).astype(np.float32) for m in MODALITIES}
    time_s = np.arange(count)[:, None] / FRAME_HZ
    labels = (0.8 * np.sin(time_s * random.uniform(0.1, 0.5, 2) + random.uniform(0, 6, 2))).round(3)
    labels[random.uniform(size=count) < INVALID_SHARE] = -5
    return Video(
        name, **values, labels=labels.astype(np.float32), bounds=tuple(bounds), words=tuple(words)
    )


def write_published(folder: Path, video: Video) -> None:
    """Write the published layout: a folder a sentence, in it three tensors and two text files."""
    for k, (first, stop) in enumerate(itertools.pairwise(video.bounds)):
        place = folder / video.name / f"{k:03d}"
        place.mkdir(parents=True)
        hops = slice(first * VOICE_HZ // FRAME_HZ, stop * VOICE_HZ // FRAME_HZ)
        values = {
            "visual": video.visual[first:stop],
            "audio": video.audio[hops].mean(0, keepdims=True),
            "text": video.text[[w.segment == k for w in video.words]].mean(0, keepdims=True),
        }
        for m in MODALITIES:
            torch.save(torch.from_numpy(values[m].copy()), place / f"{FILES[m]}_embedding.pt")
        rows = [f"{v:g},{a:g}\n" for v, a in video.labels[first:stop].tolist()]
        (place / "annotations.txt").write_text("valence,arousal\n" + "".join(rows))
        times_s = (first / FRAME_HZ, stop / FRAME_HZ, first / FRAME_HZ)
        lines = zip(("start", "end", "prev_end"), times_s, strict=True)
        (place / "timestep.txt").write_text("".join(f"{n}: {s:.3f}\n" for n, s in lines))


def write_store(folder: Path, video: Video, split: str) -> ClipKeys:
    """Write the entries of a feature store."""
    store, count = Store(folder), len(video.labels)
    hops_s = (np.arange(len(video.audio)) + 0.5) / VOICE_HZ
    spans_s = np.array(list(itertools.pairwise(video.bounds))) / FRAME_HZ
    entries: dict[str, dict[str, npt.NDArray[Any]]] = {
        "frames": {"frame_s": np.arange(count) / FRAME_HZ, "held": np.array([count])},
        "labels": {"labels": video.labels},
        "visual": {"frames": np.arange(1, count + 1), "values": video.visual},
        "audio": {"times_s": hops_s, "values": video.audio, "spans_s": spans_s},
        "words": words_arrays(video.words) | {"vectors": video.text},
    }
    keys: dict[str, Any] = {kind: key(video=video.name, kind=kind) for kind in entries}
    for kind, arrays in entries.items():
        store.put(kind, keys[kind], arrays)
    return ClipKeys(video.name, split, person="", media_sha256=None, **keys)


def write_both(root: Path, videos: int, seconds: float, widths: dict[str, int]) -> None:
    """Write `root`/published and `root`/store; the latter has a short video to validate on too."""
    clips = []
    for k, share in enumerate(np.linspace(0.5, 1.5, videos)):
        video = make_video(f"video{k}", seconds * share, widths, seed=k)
        write_published(root / "published", video)
        clips.append(write_store(root / "store", video, "train"))
    video = make_video("unseen", VAL_S, widths, seed=videos)
    clips.append(write_store(root / "store", video, "val"))
    about = {m: {"kind": "random", "width": width} for m, width in widths.items()}
    manifest = Manifest("random", about, {}, "made-up", tuple(clips), (), maven.__version__)
    write_manifest(root / "store", manifest)


@dataclass(frozen=True)
class Tally:
    """What a loop did: frames with a valid label, steps, seconds, those of reading, its losses."""

    frames: int
    steps: int
    seconds: float
    reading_s: float
    losses: list[float]


# --- a loop that follows the published one -----------------------------------------------------

Sentence = tuple[dict[str, Tensor], list[str]]  # (t, d), (1, d), (1, d); a line a frame


class Sentences(Dataset[Sentence]):
    """Sentences on disk, read anew each time they are asked for."""

    def __init__(self, root: Path) -> None:
        self.folders = sorted(path.parent for path in root.glob("*/*/annotations.txt"))
        self.invalid = 0

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, k: int) -> Sentence:
        """Load the three tensors with noise, standardised, and the lines of the labels."""
        values = {}
        for m, name in FILES.items():
            x = torch.load(self.folders[k] / f"{name}_embedding.pt", weights_only=True)
            x = x + 0.01 * torch.randn_like(x)
            values[m] = (x - x.mean()) / (x.std() + 1e-6)
        lines = (self.folders[k] / "annotations.txt").read_text().splitlines()[1:]
        for line in lines:
            self.invalid += any(not -1 <= float(number) <= 1 for number in line.split(","))
        return values, lines


def padded(sentences: Sequence[Sentence]) -> tuple[dict[str, Tensor], list[list[str]]]:
    """Stack sentences, zeros after the shorter ones."""
    longest = max(len(values["visual"]) for values, _ in sentences)
    stacked: dict[str, Tensor] = {}
    for m in MODALITIES:
        parts = [values[m] for values, _ in sentences]
        if m == "visual":
            parts = [torch.cat((x, x.new_zeros(longest - len(x), x.shape[1]))) for x in parts]
        stacked[m] = torch.stack(parts)
    return stacked, [lines for _, lines in sentences]


def parse(batch: Sequence[Sequence[str]], longest: int) -> tuple[Tensor, Tensor]:
    """Read the lines once more: targets (b, t, 2), and (b, t) bool, where there is a line."""
    target = torch.zeros(len(batch), longest, 2)
    mask = torch.zeros(len(batch), longest, dtype=torch.bool)
    for i, lines in enumerate(batch):
        for j, line in enumerate(lines):
            valence, arousal = line.strip().split(",")
            target[i, j] = torch.tensor([float(valence), float(arousal)])
        mask[i, : len(lines)] = True
    return target, mask


def number_ccc(x: Tensor, y: Tensor) -> float:
    """Agreement of two series (n,) as a plain number, which has no gradient."""
    x_mean, y_mean = x.mean().item(), y.mean().item()
    covariance = ((x - x_mean) * (y - y_mean)).mean().item()
    return 2 * covariance / (x.var().item() + y.var().item() + (x_mean - y_mean) ** 2 + 1e-8)


def attend(attention: Attention, queries: Tensor, keys: Tensor) -> Tensor:
    """Attention (b, t, d) to all keys (b, s, d), of which pooled voice and words have one."""
    asked, held, told = (
        x.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for x in (attention.query(queries), attention.key(keys), attention.value(keys))
    )
    attended = F.scaled_dot_product_attention(asked, held, told)
    return attention.output(attended.transpose(1, 2).flatten(2))


def pooled_outputs(network: Maven, values: dict[str, Tensor], mask: Tensor) -> Tensor:
    """`Maven.outputs` of a reference preset, as published: pooled vectors are never repeated."""
    net: Any = network
    own = {m: net.project[m].linear(values[m]) for m in MODALITIES}
    enhanced = []
    for m in MODALITIES:
        others = [of for of in MODALITIES if of != m]
        paths = [attend(net.paths[f"{m}_from_{of}"], own[m], own[of]) for of in others]
        closed = net.enhance["shared"](net.dropout((own[m] + paths[0] + paths[1]) / 3))
        enhanced.append(closed.expand(-1, mask.shape[1], -1))
    x = net.join(torch.cat(enhanced, -1))
    near = Nearness.of(torch.arange(mask.shape[1])[None] / FRAME_HZ, None, False)
    depth, ends = net.config.join_layers, []
    for branch in range(net.config.join_branches):
        end = x
        for layer in net.layers[branch * depth : (branch + 1) * depth]:
            end = layer(end, torch.ones_like(mask), near)
        ends.append(end)
    return net.head(torch.cat(ends, -1))


def repeated_outputs(network: Maven, values: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Valence and arousal of `default`, which takes voice and words frame by frame."""
    sequences = {m: x.expand(-1, mask.shape[1], -1) for m, x in values.items()}
    time_s = torch.arange(mask.shape[1], dtype=torch.float64)[None] / FRAME_HZ
    outputs = network.outputs(sequences, dict.fromkeys(MODALITIES, mask), time_s)
    return read_head(outputs, network.config.head)


class Published:
    """A loop that follows the published one, on one device, without worker processes."""

    def __init__(self, root: Path, network: Maven, batch: int) -> None:
        self._network = network.train()
        self._outputs = pooled_outputs if network.config.pooled else repeated_outputs
        self._optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
        loader = DataLoader(Sentences(root), batch, shuffle=True, collate_fn=padded)
        self._batches: Iterator[Any] = itertools.chain.from_iterable(itertools.repeat(loader))
        self.figures = (math.nan, math.nan, 0.0)  # what it logs: loss, gradient norm, frames

    def run(self, seconds: float) -> Tally:
        """Train for so long, one step at least."""
        losses: list[float] = []
        frames, reading_s, whole_s = 0, 0.0, 0.0
        while not losses or whole_s < seconds:
            began = time.perf_counter()
            values, lines = next(self._batches)
            target, mask = parse(lines, values["visual"].shape[1])
            reading_s += time.perf_counter() - began
            self._step(values, target, mask)
            whole_s += time.perf_counter() - began
            frames += int((mask & (target.abs() <= 1).all(-1)).sum())
            losses.append(self.figures[0])
        return Tally(frames, len(losses), whole_s, reading_s, losses)

    def _step(self, values: dict[str, Tensor], target: Tensor, mask: Tensor) -> None:
        if self._network.config.head == "theta":
            target = polar_target(target)
        self._optimiser.zero_grad()
        outputs, truth = self._outputs(self._network, values, mask)[mask], target[mask]
        agreement = sum(number_ccc(outputs[:, k], truth[:, k]) for k in range(2)) / 2
        loss = F.mse_loss(outputs, truth) + 0.1 * (1 - agreement)
        loss.backward()
        total = 0.0
        for parameter in self._network.parameters():
            if parameter.grad is not None:
                total += parameter.grad.norm(2).item() ** 2
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self.figures = loss.item(), math.sqrt(total), mask.sum().item()


# --- our loop ----------------------------------------------------------------------------------


class Ours:
    """`maven.train.train` as `maven train` calls it, from a feature store, in whole epochs."""

    def __init__(self, store: Path, network: Maven) -> None:
        self._config, self._network = TrainConfig(device="cpu"), network
        clips = load_clips(store, network.config.rate_hz)
        self.clips, self._val = split_clips(clips, "official")
        for m in MODALITIES:
            network.fit_moments(m, torch.from_numpy(moment_sample(self.clips, m)))
        self._frames = sum(int(valid_labels(*clip.frame_labels.T).sum()) for clip in self.clips)
        self._windows = Windows(self.clips, self._config.window_s, self._config.batch)
        self.steps_per_epoch = self._windows.steps_per_epoch
        self._fabric = launch(self._config)
        self._epoch_s, self._reading_s = math.inf, 0.0

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Read a batch and clock it, see `maven.datasets.clips.Source`."""
        began = time.perf_counter()
        batch = self._windows.batch(epoch, step, rank, world)
        self._reading_s += time.perf_counter() - began
        return batch

    def run(self, seconds: float) -> Tally:
        """Train for about so long, one epoch at least."""
        epochs = max(round(seconds / self._epoch_s), 1)
        config = replace(self._config, epochs=epochs, patience=epochs)
        states: list[dict[str, Any]] = []
        self._reading_s = 0.0
        train(self._network, self, self._val, config, None, self._fabric, states.append)
        rows = [state["row"] for state in states if "row" in state]
        whole_s = sum(row["seconds"] for row in rows)  # of the steps: validation comes after
        self._epoch_s = whole_s / epochs
        steps, losses = epochs * self.steps_per_epoch, [row["loss"] for row in rows]
        return Tally(epochs * self._frames, steps, whole_s, self._reading_s, losses)


def loops(root: Path, batch: int) -> dict[str, Published | Ours]:
    """Make the loop of each row."""
    torch.manual_seed(0)
    made: dict[str, Published | Ours] = {}
    for name, what in ROWS.items():
        rate = {"rate_hz": float(FRAME_HZ)} if "30 Hz" in what else {}
        network = Maven(preset(what.split("`")[1], WIDTHS, **rate))
        if what.startswith("published"):
            made[name] = Published(root / "published", network, batch)
        else:
            made[name] = Ours(root / "store", network)
    return made


def shown(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the lowest and highest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} | {low:,.{digits}f}-{high:,.{digits}f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row in a round")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--length", type=float, default=157.0, help="mean, s; Aff-Wild2's is 157")
    parser.add_argument("--batch", type=int, default=8, help="sentences in a published step")
    given = parser.parse_args()
    print(describe(), f"{torch.get_num_threads()} threads", sep=", ")
    loads = [os.getloadavg()[0]]  # how many processes wanted a core during the last minute
    with tempfile.TemporaryDirectory() as folder:
        write_both(Path(folder), given.videos, given.length, WIDTHS)
        made = loops(Path(folder), given.batch)
        for loop in made.values():
            loop.run(WARM_S)
        tallies: dict[str, list[Tally]] = {name: [] for name in made}
        for _ in range(given.rounds):
            for name, loop in made.items():
                tallies[name].append(loop.run(given.seconds))
    loads.append(os.getloadavg()[0])
    print(f"{given.videos} videos of {given.length:g} s on average, {given.rounds} rounds,", end="")
    print(f" load of the machine {loads[0]:.1f} before and {loads[1]:.1f} at the end\n")
    print("| | loop, network | frames a step | frames a second | spread | reading and parsing |")
    print("|---|---|---|---|---|---|")
    rates = {name: [t.frames / t.seconds for t in row] for name, row in tallies.items()}
    for name, row in tallies.items():
        a_step = sum(t.frames for t in row) / sum(t.steps for t in row)
        share = 100 * sum(t.reading_s for t in row) / sum(t.seconds for t in row)
        print(f"| {name} | {ROWS[name]} | {a_step:.0f} | {shown(rates[name])} | {share:.0f} % |")
    print("\n| ratio | median | spread |\n|---|---|---|")
    for ratio in RATIOS:
        over, under = (rates[name] for name in ratio.split("/"))
        print(f"| {ratio} | {shown([a / b for a, b in zip(over, under, strict=True)], 1)} |")


if __name__ == "__main__":
    main()
