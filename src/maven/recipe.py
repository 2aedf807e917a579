"""What a training run is told: the settings of the loop, and the keys of its YAML file.

features: stores/corpus    # feature store, as `maven features` wrote it
encoders: mini             # name of its manifest, where it has several
fold: official             # or 0 to 5: the fold that validates
preset: default            # of the network
network: {width: 64}       # what departs from the preset, see `MavenConfig`
modalities: [visual, audio, text]  # that are seen; the others are taken for missing
start: auto                # BEiT weights to start from: a hub id, a folder or null; auto: those of
                           # the paper if the layers have their sizes and they can be had
train: {epochs: 20}        # what departs from `TrainConfig`
name: my-model
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from maven.checkpoint import BAD_CONTENT
from maven.config import MODALITIES, PRESETS, MavenConfig
from maven.datasets.clips import FOLDS
from maven.losses import LOSSES

SCHEDULES = ("cosine", "constant")
PRECISIONS = ("32-true", "bf16-mixed")
LONGEST = 1000  # characters of a message
YAML_ERRORS = (yaml.YAMLError, *BAD_CONTENT)
TYPES = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}


class TrainError(Exception):
    """Training cannot begin or go on; the message is one line of at most 1,000 characters."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
        epochs: passes over the training part, at most.
        batch: windows a step, over all processes together.
        window_s: length of a window in seconds; a network whose attention is not local is trained
            on windows of its own `window_s`.
        learning_rate: AdamW's highest.
        weight_decay: AdamW's.
        warmup: share of all steps over which the learning rate rises linearly.
        schedule: "cosine" (falls to 0 at the last step) or "constant", after the warm-up.
        clip: largest gradient norm.
        ema: decay of the moving average of the weights, which is what is validated and kept.
        patience: epochs without a better validation CCC after which training stops.
        loss: key of `maven.losses.LOSSES`; "theta" needs a network with head "theta".
        mse_weight: weight of the squared error beside 1 - CCC.
        mask_invalid: whether frames without a valid label are left out of the loss; the published
            code learns -5 as if it were a label.
        drop_modality: chance that a modality is taken away from a whole window.
        drop_stretch: chance that it is taken away from a stretch of it.
        feature_noise: spread of the noise on features, in their standard deviations.
        smoothing_s: half-widths tried on the validation part at the end, in seconds.
        seed: of everything random.
        device: "auto", "cpu" or "cuda[:N]".
        precision: "32-true" or "bf16-mixed".
    """

    epochs: int = 30
    batch: int = 16
    window_s: float = 24.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1
    schedule: str = "cosine"
    clip: float = 1.0
    ema: float = 0.995
    patience: int = 10
    loss: str = "ccc"
    mse_weight: float = 0.5
    mask_invalid: bool = True
    drop_modality: float = 0.2
    drop_stretch: float = 0.3
    feature_noise: float = 0.2
    smoothing_s: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
    seed: int = 0
    device: str = "auto"
    precision: str = PRECISIONS[0]

    def __post_init__(self) -> None:
        if isinstance(self.smoothing_s, list):  # from YAML
            object.__setattr__(self, "smoothing_s", tuple(self.smoothing_s))
        choices = {"loss": tuple(LOSSES), "schedule": SCHEDULES, "precision": PRECISIONS}
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in choices and value not in choices[name]:
                raise ValueError(f"{name} must be one of {', '.join(choices[name])}, got {value!r}")
            kinds = TYPES.get(str(field.type))
            if kinds and type(value) not in kinds:
                raise ValueError(f"{name} must be of type {field.type}, got {value!r}")
            if field.type == "float" and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, got {value!r}")
        for name in ("epochs", "batch", "patience", "window_s", "learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        for name in ("warmup", "ema", "drop_modality", "drop_stretch"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        widths = self.smoothing_s
        is_numbers = isinstance(widths, tuple) and all(isinstance(w, (int, float)) for w in widths)
        if not is_numbers or not widths or not all(0 <= w < math.inf for w in widths):
            raise ValueError(f"smoothing_s must be half-widths of 0 or more, got {widths!r}")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of the steps 0 ... steps - 1."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm)))


DEFAULTS: dict[str, Any] = {
    "features": None, "encoders": None, "fold": "official", "modalities": list(MODALITIES),
    "preset": "default", "network": {}, "start": "auto", "train": {}, "name": None,
}  # fmt: skip
SECTIONS: dict[str, tuple[str, ...]] = {
    "network": tuple(field.name for field in fields(MavenConfig)),
    "train": tuple(field.name for field in fields(TrainConfig)),
}


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines with them can say more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="an alias; accepted: no *name")
        return super().compose_node(parent, index)


def parse(text: str) -> Any:
    """Read YAML.

    Raises:
        TrainError: it is none, or it has aliases.
    """
    try:
        return yaml.load(text, _Loader)
    except YAML_ERRORS as error:  # PyYAML raises all of them, for "!!int ''" and the like
        raise TrainError(f"no YAML: {' '.join(str(error).split())}") from None


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Read what a command line sets: ["train.epochs=3"] -> {"train": {"epochs": 3}}.

    Values are YAML.

    Raises:
        TrainError: not `key=value`, or an unknown key.
    """
    changes: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        section, dot, field = name.strip().partition(".")
        if not equals or not section or (dot and not field):
            raise TrainError(f"{text!r} sets nothing; accepted: key=value, as train.epochs=3")
        if bool(dot) != (section in SECTIONS) and section in DEFAULTS:
            accepted = ", ".join(f"{section}.{key}" for key in SECTIONS.get(section, ()))
            raise TrainError(f"{name!r} cannot be set; accepted: {accepted or section}")
        try:
            typed = parse(value)
        except TrainError as error:
            raise TrainError(f"{text!r}: {value!r} is no YAML value") from error
        if dot:
            changes.setdefault(section, {})[field] = typed
        else:
            changes[section] = typed
    check_keys(changes, "the command line")
    return changes


def check_keys(config: Mapping[str, Any], where: str) -> None:
    """Refuse what `DEFAULTS` and `SECTIONS` do not name.

    Raises:
        TrainError: it names the key, the place and what is accepted.
    """
    if not isinstance(config, Mapping):
        raise TrainError(f"{where}: a mapping of {', '.join(DEFAULTS)} is needed, got {config!r}")
    places: list[tuple[str, Any, Sequence[str]]] = [("", config, tuple(DEFAULTS))]
    places += [(f"{name}.", config.get(name) or {}, keys) for name, keys in SECTIONS.items()]
    for prefix, part, accepted in places:
        if not isinstance(part, Mapping):
            raise TrainError(f"{where}: {prefix[:-1]} must be a mapping, got {part!r}")
        for key in part:
            if key not in accepted:
                raise TrainError(
                    f"{where}: unknown key {prefix}{key}; accepted: {', '.join(accepted)}"
                )


def resolve(config: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fill in the defaults, change what `changes` names, and check all that can be checked here.

    Raises:
        TrainError: an unknown key, a missing one, or a value out of range.
    """
    check_keys(config, "configuration")
    resolved = DEFAULTS | dict(config)
    for name, value in (changes or {}).items():
        resolved[name] = {**(resolved[name] or {}), **value} if name in SECTIONS else value
    check_keys(resolved, "configuration")
    for name in SECTIONS:
        resolved[name] = {key: _number(v) for key, v in (resolved[name] or {}).items()}
    if not isinstance(resolved["features"], (str, Path)):
        raise TrainError(f"features must name a feature store, got {resolved['features']!r}")
    try:
        resolved["features"] = str(Path(resolved["features"]).expanduser().absolute())
    except RuntimeError:  # "~somebody"
        raise TrainError(f"features: {resolved['features']}: no such home") from None
    if resolved["preset"] not in tuple(PRESETS):
        raise TrainError(f"no preset {resolved['preset']!r}; accepted: {', '.join(PRESETS)}")
    fold = resolved["fold"]
    if fold != "official" and (isinstance(fold, bool) or fold not in range(FOLDS)):
        raise TrainError(f"fold must be official or 0 to {FOLDS - 1}, got {fold!r}")
    kept = resolved["modalities"]
    if not isinstance(kept, list) or not kept or any(name not in MODALITIES for name in kept):
        raise TrainError(f"modalities must be some of {', '.join(MODALITIES)}, got {kept!r}")
    resolved["name"] = str(resolved["name"] or resolved["preset"])
    settings = train_config(resolved)
    resolved["train"] = {
        f.name: list(value) if isinstance(value := getattr(settings, f.name), tuple) else value
        for f in fields(settings)
    }
    return resolved


def train_config(config: Mapping[str, Any]) -> TrainConfig:
    """Read the section `train`.

    Raises:
        TrainError: a value is out of range.
    """
    try:
        return TrainConfig(**config["train"])
    except (ValueError, TypeError) as error:
        raise TrainError(f"train: {error}") from error


def _number(value: Any) -> Any:
    """Read 1e-3 as a number, which YAML 1.1 takes for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
