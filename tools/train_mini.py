"""Train the embedded model `mini` from the corpora, one step a command.

    python tools/train_mini.py prepare --sources DATA --work runs/mini   # decode, align: once
    python tools/train_mini.py faces   --work runs/mini [--device cuda]  # -> visual.safetensors
    python tools/train_mini.py voices  --work runs/mini [--device cuda]  # -> audio.safetensors
    python tools/train_mini.py words   --sources DATA --knowledge WORDS   # -> text.safetensors
    python tools/train_mini.py parts   --sources DATA --knowledge WORDS
    python tools/train_mini.py fusion  --work runs/mini [--device cuda]  # -> model.safetensors
    python tools/train_mini.py pack    --work runs/mini --out src/maven/weights/mini
    python tools/quantise_mini.py      --work runs/mini      # the graphs that are shipped

`parts` encodes what sequences are composed of. The steps that train print their figures on the
validation part and append them to WORK/log.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save as to_bytes

from maven import __version__
from maven.augment import pad_mels
from maven.checkpoint import ModelCard, save, write
from maven.config import MODALITIES, preset
from maven.datasets import compose, corpora, prepare
from maven.datasets.clips import Clip, Stream, moment_sample
from maven.encoders.build import EncoderSpec
from maven.encoders.faces import FACE_CLASSES
from maven.encoders.voices import VOICE_CLASSES, numbered
from maven.encoders.words import MiniText
from maven.inference import resting
from maven.lexicon import Knowledge, fit_words, read_knowledge
from maven.metrics import ccc
from maven.model import Maven
from maven.pretrain import Labelled, PretrainConfig, train_faces, train_voices
from maven.recipe import TrainConfig
from maven.train import train
from maven.validate import choose_smoothing, score
from mini_parts import VOICE_FITS, encode_parts, read_parts, speaker_folds

VOICE_NETS = 2  # are shipped
VOICE_FRAMES = 400  # 4 s: all but the longest clips fit
SCORED = 20  # times, while the fusion is trained: its best averaged weights are kept
RESTING = 10  # sequences in which nobody expresses anything
PARTS = ("parts_train.npz", "parts_val.npz")
ENCODERS = tuple(f"{m}.safetensors" for m in MODALITIES)
Array = np.ndarray[Any, np.dtype[np.float32]]


class Run:
    """The folder of one recipe run: where its files are and where its figures go."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.sources: Path | None = arguments.sources
        self.work: Path = arguments.work
        self.out: Path = arguments.out
        self.device: str = arguments.device
        self._knowledge: Path | None = arguments.knowledge
        self.recipe: dict[str, Any] = yaml.safe_load(arguments.config.read_text())
        self.step: str = arguments.step
        self.work.mkdir(parents=True, exist_ok=True)

    def config(self, section: str) -> PretrainConfig:
        """Settings of one encoder's training."""
        return PretrainConfig(seed=self.recipe["seed"], **self.recipe[section])

    def knowledge(self) -> Knowledge | None:
        """What is known of words before any sentence is read."""
        return None if self._knowledge is None else read_knowledge(self._knowledge)

    def log(self, figures: dict[str, Any]) -> None:
        """Print figures and append them to the log."""
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        print(" ".join(f"{k} {v}" for k, v in rounded.items()), flush=True)
        with (self.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(rounded | {"step": self.step}) + "\n")

    def told(self, what: dict[str, Any]) -> None:
        """Log what training reports, at the end of each epoch."""
        if "row" in what:
            self.log(what["row"])

    def save(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Write weights as fp16."""
        half = {
            k: (v.half() if v.is_floating_point() else v).cpu().contiguous()
            for k, v in tensors.items()
        }
        write(self.work / name, to_bytes(half))
        print(f"{self.work / name}: {(self.work / name).stat().st_size / 1e6:.2f} MB")


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def progress(done: int, total: int) -> None:
    """Print a line every tenth of the way."""
    if done % max(total // 10, 1) == 0:
        print(f"  {done} of {total}", flush=True)


def step_prepare(run: Run) -> None:
    """Align the faces and turn the speech into log mels."""
    assert run.sources is not None
    faces = corpora.read_faces(run.sources)
    crops = prepare.prepare_faces(faces, progress)
    prepare.save(
        run.work / "faces.npz",
        crops=crops, emotions=faces.emotions, va=faces.va, splits=faces.splits,
    )  # fmt: skip
    speech = corpora.read_speech(run.sources)
    mels, bounds = prepare.prepare_speech(speech, progress)
    prepare.save(
        run.work / "voices.npz",
        mels=mels,
        bounds=bounds,
        emotions=np.array([u.emotion for u in speech]),
        va=np.array([u.va for u in speech], np.float32),
        speakers=np.array([u.speaker for u in speech]),
        sexes=np.array([u.sex for u in speech]),
        splits=np.array([u.split for u in speech]),
    )


def step_faces(run: Run) -> None:
    """Train the face network."""
    with np.load(run.work / "faces.npz") as content:
        data = dict(content)
    classes = np.array([FACE_CLASSES.index(str(name)) for name in data["emotions"]])

    def split(name: str) -> Labelled:
        chosen = data["splits"] == name
        return Labelled(
            torch.from_numpy(data["crops"][chosen]).to(run.device),
            torch.from_numpy(classes[chosen]).to(run.device),
            torch.from_numpy(data["va"][chosen]).to(run.device),
        )

    net = train_faces(split("train"), split("val"), run.config("faces"), run.log)
    run.save("visual.safetensors", net.state_dict())


def step_voices(run: Run) -> None:
    """Train the voice networks; every class of RAVDESS and of nEMO is drawn equally often.

    First one for each third of the training speakers, without it: they encode parts, see
    `mini_parts`. Then those that are shipped, on all of them, from several seeds, see `MiniAudio`.
    """
    with np.load(run.work / "voices.npz") as content:
        data = dict(content)
    mels = np.split(data["mels"], data["bounds"][1:-1])
    inputs, lengths = pad_mels([prepare.restore_mel(mel) for mel in mels], VOICE_FRAMES)
    classes = np.array([VOICE_CLASSES.index(str(name)) for name in data["emotions"]])
    train = data["splits"] == "train"
    weights = evenly([str(name).split("-")[0] for name in data["speakers"]], classes, train)

    def part(chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Labelled:
        arrays = (inputs, classes, data["va"], lengths, weights)
        return Labelled(*(torch.from_numpy(a[chosen]).to(run.device) for a in arrays))

    val, config = part(data["splits"] == "val"), run.config("voices")
    shorter = replace(config, epochs=run.recipe["voice_fold_epochs"])
    folds = speaker_folds(data["speakers"])
    for k in range(VOICE_FITS):
        net = train_voices(part(train & (folds != k)), val, shorter, run.log)
        run.save(f"audio_without_{k}.safetensors", numbered([net]))
    seeds = range(config.seed, config.seed + VOICE_NETS)
    nets = [train_voices(part(train), val, replace(config, seed=k), run.log) for k in seeds]
    run.save("audio.safetensors", numbered(nets))


def evenly(
    corpus: Sequence[str],
    classes: np.ndarray[Any, np.dtype[np.int64]],
    chosen: np.ndarray[Any, np.dtype[np.bool_]],
) -> Array:
    """Weights (n,) by which each corpus, and in it each class, is drawn equally often."""
    weights = np.zeros(len(classes))
    for name in set(corpus):
        own = chosen & (np.array(corpus) == name)
        for k in np.unique(classes[own]):
            weights[own & (classes == k)] = 1 / (own & (classes == k)).sum()
        weights[own] /= weights[own].sum()
    return weights


def step_words(run: Run) -> None:
    """Fit the words' lexicon and score it on the held-out sentences."""
    assert run.sources is not None
    sentences = corpora.read_sentences(run.sources)
    train, val = sentences.splits == "train", sentences.splits == "val"
    ridge, knowledge = run.recipe["words"]["ridge"], run.knowledge()
    lexicon = fit_words(_texts(sentences, train), sentences.va[train], ridge, knowledge)
    encode = MiniText(lexicon, "")
    predicted = np.stack([encode.score(text) for text in _texts(sentences, val)])
    true = sentences.va[val]
    run.log(
        {
            "ccc_valence": ccc(predicted[:, 0], true[:, 0]),
            "ccc_arousal": ccc(predicted[:, 1], true[:, 1]),
        }
    )
    run.save("text.safetensors", {k: torch.from_numpy(v) for k, v in vars(lexicon).items()})


def _texts(sentences: corpora.Sentences, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> list[str]:
    return [sentences.texts[k] for k in np.flatnonzero(chosen)]


def step_parts(run: Run) -> None:
    """Encode the parts of which sequences are composed."""
    assert run.sources is not None
    encode_parts(run.sources, run.work, run.recipe, run.knowledge(), run.device)


def fusion_settings(recipe: dict[str, Any], device: str) -> tuple[TrainConfig, int]:
    """How the fusion is trained, and the steps of what it takes for an epoch."""
    fusion = dict(recipe["fusion"])
    epoch = max((steps := fusion.pop("steps")) // SCORED, 1)
    fusion |= {"epochs": steps // epoch, "patience": steps, "smoothing_s": recipe["smoothing_s"]}
    return TrainConfig(seed=recipe["seed"], device=device, **fusion), epoch


def sequences(parts: compose.Parts, count: int, seconds: float, seed: int) -> list[Clip]:
    """Compose clips."""
    rng = np.random.default_rng(seed)
    made = [compose.compose(parts, seconds, rng) for _ in range(count)]
    return [Clip(str(k), "", f, va, f.time_s, va) for k, (f, va) in enumerate(made)]


def step_fusion(run: Run) -> None:
    """Train the network on composed sequences, choose the smoothing, write the model folder."""
    rate_hz = run.recipe["network"]["rate_hz"]
    train_parts, val_parts = (read_parts(run.work / name, rate_hz) for name in PARTS)
    seed, seconds = run.recipe["seed"], run.recipe["sequence_s"]
    first = sequences(train_parts, 64, seconds, seed + 1)
    widths = {m: first[0].features.values[m].shape[1] for m in MODALITIES}
    config = preset("default", widths, **run.recipe["network"])
    torch.manual_seed(seed)
    network = Maven(config)
    for m in MODALITIES:
        network.fit_moments(m, torch.from_numpy(moment_sample(first, m)))
    val = sequences(val_parts, 20, run.recipe["val_s"], seed + 2)
    settings, steps = fusion_settings(run.recipe, run.device)
    source = Stream(partial(compose.compose, train_parts, seconds), steps, settings.batch, seed)
    average = train(network, source, val, settings, report=run.told).half().float()  # as stored
    figures = {"all": score(average, val)}
    figures |= {f"{m}_only": score(average, val, (m,)) for m in MODALITIES}
    for name, agreement in figures.items():
        run.log({"modalities": name} | agreement)
    smoothing_s, by_width = choose_smoothing(average, val, settings.smoothing_s)
    run.log({"smoothing_s": smoothing_s} | {f"half width {k} s": v for k, v in by_width.items()})
    specs = {m: EncoderSpec("mini", f"{m}.safetensors") for m in MODALITIES}
    training = {
        "recipe": run.recipe,
        "figures": figures,
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "maven": __version__},
        "sha256": {name: sha256(run.work / name) for name in (*PARTS, *ENCODERS)},
    }
    neutral = sequences(train_parts.carried_by(None), RESTING, run.recipe["val_s"], seed + 3)
    rest = resting(average, [clip.features for clip in neutral], smoothing_s)
    card = ModelCard("mini", config, specs, smoothing_s, training, rest=rest)
    save(average.half(), card, run.work)


def step_pack(run: Run) -> None:
    """Copy the finished model folder into the package; the card last: with one, it is whole."""
    trained_on = json.loads((run.work / "config.json").read_text())["training"]["sha256"]
    for name in ENCODERS:
        if sha256(run.work / name) != trained_on[name]:
            raise SystemExit(
                f"{run.work / name} is not what the network was trained on: run fusion"
            )
    run.out.mkdir(parents=True, exist_ok=True)
    for name in (*ENCODERS, "model.safetensors", "config.json"):
        write(run.out / name, (run.work / name).read_bytes())
        print(f"{run.out / name}: {(run.out / name).stat().st_size / 1e6:.2f} MB")


STEPS = {
    "prepare": step_prepare,
    "faces": step_faces,
    "voices": step_voices,
    "words": step_words,
    "parts": step_parts,
    "fusion": step_fusion,
    "pack": step_pack,
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--sources", type=Path, help="folder of the corpora (text, speech, faces)")
    parser.add_argument("--knowledge", type=Path, help="folder of what is known of words")
    parser.add_argument("--work", type=Path, default=Path("runs/mini"))
    parser.add_argument("--out", type=Path, default=Path("src/maven/weights/mini"))
    parser.add_argument("--config", type=Path, default=Path("configs/mini.yaml"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.sources is None and arguments.step in ("prepare", "words", "parts"):
        parser.error(f"{arguments.step} reads the corpora: give --sources")
    began = time.monotonic()
    STEPS[arguments.step](Run(arguments))
    print(f"{arguments.step}: {time.monotonic() - began:.0f} s on {arguments.device}")


if __name__ == "__main__":
    main()
