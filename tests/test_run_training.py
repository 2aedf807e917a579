"""From a configuration to a model that loads: what is written, what is resumed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import maven
from maven import train as training
from maven.checkpoint import MINI_FOLDER, read_card
from maven.config import MODALITIES
from maven.datasets.clips import load_clips, moment_sample, only, split_clips
from maven.encoders.mini import load_mini
from maven.model import Maven
from maven.recipe import TrainError, resolve
from maven.runs import Run
from maven.store import Manifest, StoreError, write_manifest
from maven.train import run_training
from maven.validate import score
from planted import RATE_HZ, TINY, write_store

NETWORK = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
TRAIN = {
    "epochs": 2, "batch": 5, "window_s": 4.0, "learning_rate": 5e-3, "device": "cpu",
    "smoothing_s": [0.0, 0.8],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder, train=7, val=2)
    return folder


def config(store: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"features": str(store), "network": NETWORK, "train": TRAIN}
    return resolve({**base, "name": "toy"}, changes)


def test_a_run_is_written_and_scores_as_it_says(store: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    result = run_training(config(store), tmp_path / "run", report=told.append)
    assert [e["row"]["epoch"] for e in told if "row" in e] == [1, 2]
    assert result["epochs"] == 2
    assert result["notes"] == []
    assert result["smoothing_s"] in result["smoothed"]
    assert result["smoothed"][0.0] == pytest.approx(result["ccc_mean"])
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.yaml", "environment.json", "last.safetensors", "log.csv", "tensorboard", "best",
        "curves.png",
    }  # fmt: skip
    run = Run(tmp_path / "run")
    assert run.config() == config(store)
    data = run.environment()["data"]
    assert data["clips"]["val"] == ["video7", "video8"]
    assert len(data["clips"]["train"]) == 7
    card = read_card(run.best)
    made = Maven(card.config)
    from safetensors.torch import load_file

    made.load_state_dict(load_file(run.best / "model.safetensors"))
    clips = load_clips(store, RATE_HZ)
    agreement = score(made.eval(), split_clips(clips, "official")[1])
    assert agreement["ccc_mean"] == pytest.approx(result["ccc_mean"], abs=1e-9)
    for m in MODALITIES:
        observed = moment_sample(split_clips(clips, "official")[0], m)
        found = made.get_buffer(f"project.{m}.mean").numpy()
        np.testing.assert_allclose(found, observed.mean(0), rtol=1e-5, atol=1e-6)


def test_a_finished_run_stays_as_it_is_when_resumed(store: Path, tmp_path: Path) -> None:
    first = run_training(config(store), tmp_path)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.suffix in (".safetensors", ".csv")}
    again = run_training(None, tmp_path, resume=True)
    assert again == first
    assert {p: p.read_bytes() for p in files} == files


def test_a_fold_and_some_modalities(store: Path, tmp_path: Path) -> None:
    result = run_training(config(store, fold=2, modalities=["visual", "text"]), tmp_path)
    names = Run(tmp_path).environment()["data"]["clips"]
    assert {"video7", "video8"} < set(names["train"])
    assert 1 <= len(names["val"]) <= 2
    made = Maven(read_card(tmp_path / "best").config)
    from safetensors.torch import load_file

    made.load_state_dict(load_file(tmp_path / "best" / "model.safetensors"))
    assert made.get_buffer("project.audio.scale").eq(1).all()  # never seen
    clips = split_clips(load_clips(store, RATE_HZ), 2)[1]
    seen = score(made.eval(), only(clips, ("visual", "text")))
    assert seen["ccc_mean"] == pytest.approx(result["ccc_mean"], abs=1e-9)


def test_a_network_that_is_not_local_has_its_own_windows(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    outputs = Maven.outputs

    def spy(self: Maven, features: Any, observed: Any, time_s: torch.Tensor) -> torch.Tensor:
        lengths.add(time_s.shape[1] if self.training else 0)
        return outputs(self, features, observed, time_s)

    monkeypatch.setattr(Maven, "outputs", spy)
    changes = {"preset": "reference-mlp", "network": {"window_s": 3.0}, "train": {"epochs": 1}}
    result = run_training(config(store, **changes), tmp_path)
    assert lengths == {0, 15}
    assert result["notes"] == ["windows of 3 s, the network's own, in place of train.window_s"]


def test_weights_to_start_from_are_taken_over_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def start(network: Maven, source: str, offline: bool) -> list[str]:
        asked.append((source, offline))
        return ["they start somewhere"]

    monkeypatch.setattr("maven.train.start", start)
    changes = {"start": "owner/beit", "train": {"epochs": 1}}
    result = run_training(config(store, **changes), tmp_path, offline=True)
    assert asked == [("owner/beit", True)]
    assert result["notes"] == ["they start somewhere"]
    run_training(None, tmp_path, resume=True)
    assert len(asked) == 1


def test_features_of_the_embedded_encoders_give_a_model_that_loads(tmp_path: Path) -> None:
    """Their files go with it, so that the folder works anywhere."""
    encoders = {}
    for m in MODALITIES:
        path = MINI_FOLDER / f"{m}.safetensors"
        encoder = load_mini(m, path, "cpu")
        encoders[m] = {
            "kind": "mini", "source": path.name, "revision": None, "name": encoder.name,
            "fingerprint": encoder.fingerprint, "width": encoder.width,
        }  # fmt: skip
    manifest = write_store(tmp_path / "store", encoders=encoders, name="mini")
    run_training(config(tmp_path / "store", train={"epochs": 1}), tmp_path / "run")
    (tmp_path / "run" / "best").rename(tmp_path / "elsewhere")
    model = maven.load(tmp_path / "elsewhere", device="cpu")
    assert model.card.name == "toy"
    assert model.encoders.visual.width == encoders["visual"]["width"]
    encoders["audio"]["fingerprint"] = "another"
    write_manifest(tmp_path / "store", Manifest(**vars(manifest) | {"encoders": encoders}))
    with pytest.raises(TrainError, match=r"audio\.safetensors did not make these features"):
        run_training(config(tmp_path / "store"), tmp_path / "other")
    write_manifest(
        tmp_path / "store", Manifest(**vars(manifest) | {"encoders": encoders, "name": "gone"})
    )
    with pytest.raises(TrainError, match="encoders that made these features: no model named gone"):
        run_training(config(tmp_path / "store", encoders="gone"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- what is refused ---------------------------------------------------------------------------


def relabelled(folder: Path, **splits: str) -> Path:
    """The same store with videos moved to other splits, or without labels (split "")."""
    manifest = write_store(folder, train=4, val=2)
    clips = []
    for clip in manifest.clips:
        about = vars(clip).copy()
        if clip.name in splits:
            about |= {"split": splits[clip.name]} if splits[clip.name] else {"labels": None}
        clips.append(type(clip)(**about))
    write_manifest(folder, Manifest(**vars(manifest) | {"clips": tuple(clips)}))
    return folder


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        ({"video4": "test", "video5": "test"}, "fold official: no clips to validate on"),
        ({f"video{k}": "test" for k in range(4)}, "fold official: no clips to train on"),
        ({f"video{k}": "" for k in range(4)}, "not one valid label in the 4 clips to train on"),
        ({"video4": "", "video5": ""}, "not one valid label in the 2 clips to validate on"),
    ],
)
def test_without_clips_or_labels_nothing_begins(
    tmp_path: Path, moved: dict[str, str], reason: str
) -> None:
    store = relabelled(tmp_path / "store", **moved)
    with pytest.raises(TrainError, match=reason) as caught:
        run_training(config(store), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_clips_without_a_label_are_noted(tmp_path: Path) -> None:
    store = relabelled(tmp_path / "store", video2="")
    result = run_training(config(store, train={"epochs": 1}), tmp_path / "run")
    assert result["notes"] == ["1 clips to train on have no valid label, video2 for one"]


def test_an_unreadable_feature_file_is_named(tmp_path: Path) -> None:
    manifest = write_store(tmp_path / "store")
    key = manifest.clips[1].visual
    assert key is not None
    path = tmp_path / "store" / "arrays" / "visual" / key[:2] / key / "values.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match=r"values\.npy"):
        run_training(config(tmp_path / "store"), tmp_path / "run")
    with pytest.raises(StoreError, match="no feature store"):
        run_training(config(tmp_path / "nowhere"), tmp_path / "run")


def test_a_wrong_network_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="network: width and join_width must be multiples"):
        run_training(config(store, network={"width": 15}), tmp_path / "run")
    with pytest.raises(TrainError, match="loss theta needs a network with head theta"):
        run_training(config(store, train={"loss": "theta"}), tmp_path / "run")


def test_a_run_is_not_begun_twice_nor_resumed_on_other_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "store")
    one = config(tmp_path / "store", train={"epochs": 1})
    run_training(one, tmp_path / "run")
    with pytest.raises(TrainError, match="holds a run already"):
        run_training(one, tmp_path / "run")
    with pytest.raises(TrainError, match="holds no run to resume"):
        run_training(None, tmp_path / "nothing", resume=True)
    write_store(tmp_path / "store", train=5)
    facts: dict[str, str] = {}
    monkeypatch.setattr(training, "agree", lambda fabric, **said: facts.update(said))
    with pytest.raises(TrainError, match="its features have changed since it began"):
        run_training(None, tmp_path / "run", resume=True)
    assert facts["run"] != facts["features"]  # the others were told, none waits


@pytest.mark.parametrize("text", ["epochs: 3", "name: x", "train: 3", "train: {epochs: 0}"])
def test_a_changed_configuration_is_not_resumed(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(TrainError, match="^" + str(tmp_path)) as caught:
        run_training(None, tmp_path, resume=True)
    assert "\n" not in str(caught.value)


# --- stops on the way --------------------------------------------------------------------------


def test_a_stop_on_the_way_keeps_the_last_good_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is no number in the third epoch; then the cause is gone, and the run goes on."""
    whole = run_training(config(store, train={"epochs": 4}), tmp_path / "whole")
    steps, outputs = [0], Maven.outputs

    def broken(self: Maven, *inputs: Any) -> torch.Tensor:
        steps[0] += self.training
        out = outputs(self, *inputs)
        return out * torch.nan if steps[0] > 2 * per_epoch + 1 and self.training else out

    per_epoch = Run(tmp_path / "whole").progress().step // 4
    monkeypatch.setattr(Maven, "outputs", broken)
    run = tmp_path / "run"
    reason = rf"epoch 3, step 2: loss nan, .* is kept: {run}/last\.safetensors, epoch 2"
    with pytest.raises(TrainError, match=reason) as caught:
        run_training(config(store, train={"epochs": 4}), run)
    assert "\n" not in str(caught.value)
    assert Run(run).progress().epoch == 2
    monkeypatch.undo()
    result = run_training(None, run, resume=True)
    assert result | {"folder": ""} == whole | {"folder": ""}
    for name in ("best/model.safetensors", "best/config.json"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_full_disk_stops_it_and_leaves_what_was_good(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    saved, save_file = [0], safetensors.torch.save_file

    def full(*arguments: Any) -> None:
        saved[0] += 1
        if saved[0] == 2:
            arguments[1].write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(*arguments)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    reason = r"last\.safetensors cannot be written \(No space left on device\); .* epoch 1$"
    with pytest.raises(TrainError, match=reason):
        run_training(config(store), tmp_path)
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    assert run_training(None, tmp_path, resume=True)["epochs"] == 2
    assert json.loads((tmp_path / "best" / "config.json").read_text())["training"]["smoothed"]
