from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from maven.encoders.base import EncoderError
from maven.encoders.hub import WEIGHTS, folder_of

REQUIRED = (("config.json",), WEIGHTS)
OPTIONAL = ("preprocessor_config.json",)


def find(source: str | Path, **options: Any) -> Path:
    return folder_of(source, required=REQUIRED, optional=OPTIONAL, **options)


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


class FakeHub:
    """A hub with the given files, and a disk that keeps what was fetched."""

    def __init__(self, disk: Path, names: set[str], *, reachable: bool = True) -> None:
        self.disk, self.names, self.reachable = disk, names, reachable
        self.fetched: list[str] = []

    def __call__(
        self, repo_id: str, filename: str, *, revision: str | None, local_files_only: bool
    ) -> str:
        path = self.disk / filename
        if path.exists():
            return str(path)
        if local_files_only or not self.reachable:
            raise LocalEntryNotFoundError("cannot find it\non this disk")
        if filename not in self.names:
            raise EntryNotFoundError("404")
        self.fetched.append(filename)
        put(self.disk, filename)
        return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeHub]:
    def make(*names: str, reachable: bool = True) -> FakeHub:
        fake = FakeHub(tmp_path / "disk", set(names), reachable=reachable)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
        return fake

    return make


def refused(source: str | Path, **options: Any) -> str:
    with pytest.raises(EncoderError) as caught:
        find(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(source) in message
    return message


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = put(tmp_path / "model", "config.json", "pytorch_model.bin")
    assert find(folder) == find(str(folder)) == folder


def test_faults_of_folders(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "no such home" in refused("~no-such-user/model")
    assert "has no config.json" in refused(put(tmp_path / "a", "model.safetensors"))
    assert "model.safetensors or pytorch_model.bin" in refused(put(tmp_path / "b", "config.json"))
    assert "neither a folder nor" in refused("/no/such/folder")
    assert "neither a folder nor" in refused("not an id")


def test_only_what_is_missing_is_fetched(hub: Callable[..., FakeHub]) -> None:
    fake = hub("config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json")
    assert find("org/model") == fake.disk
    assert fake.fetched == ["preprocessor_config.json", "config.json", "model.safetensors"]
    fake.reachable = False
    assert find("org/model") == fake.disk  # the second time needs no hub
    assert find("org/model", offline=True) == fake.disk


def test_older_weights_do(hub: Callable[..., FakeHub]) -> None:
    fake = hub("config.json", "pytorch_model.bin")
    find("org/model")
    assert fake.fetched == ["config.json", "pytorch_model.bin"]


def test_faults_of_the_hub(hub: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = hub("README.md")
    assert "has no config.json" in refused("org/model")
    put(fake.disk, "config.json")
    assert "has no model.safetensors or" in refused("org/model", revision="v2")
    assert fake.fetched == []
    offline = refused("org/model", offline=True)
    assert "offline" in offline
    assert "model.safetensors or pytorch_model.bin is not on disk" in offline
    fake.reachable = False
    assert "hub cannot be reached" in refused("org/model")

    def fail_with(error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)

    fail_with(RepositoryNotFoundError.__new__(RepositoryNotFoundError))
    assert "not on the hub" in refused("org/model")
    fail_with(ConnectionError("no route"))
    assert "hub cannot be reached" in refused("org/model")
    fail_with(OSError("No space left on device\nreally"))
    assert "cannot be fetched (No space left on device)" in refused("org/model")


def test_the_real_client_reads_its_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's attempts
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = put(tmp_path / "models--org--model" / "snapshots" / commit, "config.json", WEIGHTS[0])
    refs = tmp_path / "models--org--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    assert find("org/model") == find("org/model", offline=True) == cached
    assert "offline is asked for" in refused("org/other", offline=True)
    assert "hub cannot be reached" in refused("org/other")
