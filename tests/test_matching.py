"""Which features a network may read: those of its own encoders, and no others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maven import matching
from maven.checkpoint import MINI_FOLDER, ModelCard, ModelError, Network, load_network, save
from maven.config import MavenConfig
from maven.datasets.affwild2 import CorpusError
from maven.encoders.build import PAPER
from maven.matching import clips_of, difference, is_store, manifest_for
from maven.model import Maven
from maven.store import Manifest, StoreError, read_manifest, write_manifest
from tiny_bench import mini_encoders, write_mini_store
from toy_mini import save_toy_mini

SMALL = MavenConfig(32, 24, 16, width=8, heads=2, join_width=8, join_heads=2, join_layers=1)


@pytest.fixture(scope="module")
def mini() -> Network:
    return load_network("mini", device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_mini_store(tmp_path / "store")
    return tmp_path / "store"


def changed(manifest: Manifest, modality: str, name: str = "other", **about: Any) -> Manifest:
    encoders = manifest.encoders | {modality: manifest.encoders[modality] | about}
    return replace(manifest, name=name, encoders=encoders)


# --- the same encoders or not ------------------------------------------------------------------


def test_its_own_features_are_accepted(mini: Network, store: Path) -> None:
    manifest = manifest_for(mini, store)
    assert manifest.name == "mini"
    assert difference(mini, manifest) is None


@pytest.mark.parametrize(
    ("modality", "about", "says"),
    [
        ("visual", {"fingerprint": "0" * 16}, "visual: other weights or preparation"),
        ("text", {"fingerprint": "0" * 16}, "text: other weights or preparation"),
        ("audio", {"width": 12}, "audio: 12 wide, not 11"),
        ("audio", {"kind": "hubert"}, "audio: hubert, not mini"),
    ],
)
def test_features_of_other_encoders_are_refused(
    mini: Network, store: Path, modality: str, about: dict[str, Any], says: str
) -> None:
    other = changed(manifest_for(mini, store), modality, **about)
    assert difference(mini, other) == says
    (store / "mini.json").unlink()
    write_manifest(store, other)
    with pytest.raises(StoreError) as error:
        manifest_for(mini, store)
    assert f"no features of the encoders of the model mini; it has other ({says})" in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_of_several_manifests_the_right_one_is_found(mini: Network, store: Path) -> None:
    right = manifest_for(mini, store)
    (store / "mini.json").unlink()
    for name, modality, about in (
        ("a", "visual", {"fingerprint": "0" * 16}),
        ("b", "text", {"width": 9}),
        ("z", "audio", {"kind": "hubert"}),
    ):
        write_manifest(store, changed(right, modality, name, **about))
    write_manifest(store, replace(right, name="m"))
    assert manifest_for(mini, store).name == "m"
    (store / "m.json").unlink()
    with pytest.raises(StoreError, match=r"it has a \(visual: .*\), b \(text: .*\), z \(audio: "):
        manifest_for(mini, store)


def test_a_network_trained_elsewhere_has_its_encoders_in_its_folder(
    store: Path, tmp_path: Path
) -> None:
    """The same encoder files in another model folder are the same; other weights are not."""
    folder = Path(shutil.copytree(MINI_FOLDER, tmp_path / "copy"))
    assert difference(load_network(folder, device="cpu"), read_manifest(store)) is None
    toy = save_toy_mini(tmp_path / "toy")
    found = load_network(toy, device="cpu")
    assert difference(found, read_manifest(store)) == "visual: other weights or preparation"
    (folder / "audio.safetensors").unlink()
    with pytest.raises(ModelError, match=r"copy: its encoders cannot be read \("):
        difference(load_network(folder, device="cpu"), read_manifest(store))


def published(training: dict[str, Any] | None = None) -> tuple[Network, Manifest]:
    """A network on the paper's encoders, and features of these."""
    card = ModelCard("large", SMALL, PAPER, 0.0, training or {})
    widths = {m: SMALL.input_width(m) for m in PAPER}
    encoders = {
        m: {
            "kind": spec.kind, "source": spec.source, "revision": spec.revision,
            "name": spec.kind, "fingerprint": f"{m}-1", "width": widths[m],
        }
        for m, spec in PAPER.items()
    }  # fmt: skip
    found = Network(card, Maven(SMALL).eval(), "0" * 64, Path("nowhere"), "cpu")
    return found, Manifest("paper", encoders, {}, "corpus", (), (), "0")


def test_encoders_of_the_hub_are_told_apart_by_source_and_revision() -> None:
    found, manifest = published()
    assert difference(found, manifest) is None
    other = changed(manifest, "text", source="somebody/roberta")
    assert difference(found, other) == "text: somebody/roberta, not FacebookAI/roberta-base"
    other = changed(manifest, "visual", revision="v2")
    swin = PAPER["visual"].source
    assert difference(found, other) == f"visual: {swin}@v2, not {swin}"


def test_fingerprints_that_were_recorded_with_the_network_count() -> None:
    recorded = {m: {"fingerprint": f"{m}-1"} for m in PAPER}
    found, manifest = published({"encoders": recorded})
    assert difference(found, manifest) is None
    moved = changed(manifest, "text", source="mirror/roberta")
    assert difference(found, moved) is None
    other = changed(manifest, "text", fingerprint="text-2")
    assert difference(found, other) == "text: other weights or preparation"


# --- what is no store --------------------------------------------------------------------------


def test_a_store_without_a_readable_manifest_is_named(mini: Network, store: Path) -> None:
    assert is_store(store)
    (store / "mini.json").write_text("{")
    with pytest.raises(StoreError, match=r"mini\.json: not a manifest"):
        manifest_for(mini, store)
    (store / "mini.json").unlink()
    with pytest.raises(StoreError, match="no feature store"):
        manifest_for(mini, store)
    assert not is_store(store.parent)


def test_clips_of_a_store(mini: Network, store: Path) -> None:
    manifest = manifest_for(mini, store)
    write_manifest(store, replace(manifest, failed=(("broken", "not a media file"),)))
    with clips_of(mini, store, "val") as (clips, left_out):
        assert [clip.name for clip in clips] == ["video4", "video5"]
        assert left_out == ["broken"]
        steps_s = np.diff(clips[0].features.time_s)
        np.testing.assert_allclose(steps_s, 1 / mini.card.config.rate_hz)
    with clips_of(mini, store, None) as (clips, _):
        assert [clip.split for clip in clips] == ["train"] * 4 + ["val"] * 2 + ["test"]


def test_a_split_that_is_not_there_is_refused(mini: Network, store: Path) -> None:
    manifest = manifest_for(mini, store)
    write_manifest(store, replace(manifest, clips=manifest.clips[:4]))
    with (
        pytest.raises(StoreError, match="corpus: no video of the split 'val'; it has: train"),
        clips_of(mini, store, "val"),
    ):
        pass


# --- a corpus ----------------------------------------------------------------------------------

Asked = dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Extraction is faked: it writes the tiny store; what it was asked for."""
    seen: Asked = {}

    def extract(root: Path, folder: Path, name: str, **options: Any) -> Manifest:
        seen.update(options, root=root, folder=folder, name=name)
        for done, step in enumerate(("video0: faces", "video0: voice", "video1: faces")):
            options["progress"](step, done, 7)
        return write_mini_store(folder)

    monkeypatch.setattr(matching, "extract", extract)
    return seen


def test_a_corpus_is_extracted_into_a_folder_that_goes_again(
    mini: Network, asked: Asked, tmp_path: Path
) -> None:
    told: list[tuple[str, float, float | None]] = []

    def progress(stage: str, done: float, total: float | None) -> None:
        told.append((stage, done, total))

    with clips_of(mini, tmp_path, "val", offline=True, progress=progress) as (clips, left_out):
        assert (len(clips), left_out) == (2, [])
        assert asked["folder"].is_dir()
        assert np.isfinite(clips[0].features.values["visual"]).all()
    assert not asked["folder"].exists()
    assert asked["root"] == tmp_path
    assert (asked["name"], asked["device"], asked["offline"]) == ("mini", "cpu", True)
    assert told == [("features", k, 7) for k in range(3)]  # one bar for all
    with pytest.raises(ZeroDivisionError), clips_of(mini, tmp_path, "val") as (clips, _):
        raise ZeroDivisionError
    assert not asked["folder"].exists()


def test_a_models_own_encoders_extract(mini: Network, asked: Asked, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MINI_FOLDER, tmp_path / "copy"))
    with clips_of(load_network(folder, device="cpu"), tmp_path, "val") as (clips, _):
        assert len(clips) == 2
    assert asked["name"] == str(folder)


def test_a_model_that_does_not_fit_its_encoders_is_refused(asked: Asked, tmp_path: Path) -> None:
    """As a published checkpoint of other features does, which is converted with the paper's."""
    config = replace(SMALL, visual_width=7)
    specs = load_network("mini", device="cpu").card.encoders
    save(Maven(config), ModelCard("odd", config, specs), tmp_path / "odd")
    found = load_network(tmp_path / "odd", device="cpu")
    width = mini_encoders()["visual"]["width"]
    with (
        pytest.raises(ModelError, match=f"odd does not fit together: visual: {width} wide, not 7"),
        clips_of(found, tmp_path, "val"),
    ):
        pass


def test_a_folder_without_a_corpus_is_refused(mini: Network, tmp_path: Path) -> None:
    with (
        pytest.raises(CorpusError, match="no VA_Estimation_Challenge"),
        clips_of(mini, tmp_path, "val"),
    ):
        pass
