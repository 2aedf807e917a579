"""Checkpoints from others: nothing in them runs, none fills the memory, each is refused in a line.

Every model is loaded in a process of its own with 3 GiB of memory, so that what goes wrong shows.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file

from maven.checkpoint import MINI_FOLDER, ModelError, load_network, read_card
from maven.config import MavenConfig
from maven.convert import ConvertError, convert_published, read_published, start_beit
from maven.encoders.base import EncoderError
from maven.encoders.build import EncoderSpec, build
from maven.model import Maven
from maven.portable import GRAPHS, GraphError, read_graph
from maven.recipe import TrainError
from maven.runs import Progress, Run
from toy_mini import Bomb

CHILD = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
from maven.checkpoint import load
told = []
for folder, runtime in json.loads(sys.stdin.read()):
    try:
        load(folder, device="cpu", offline=True, runtime=runtime)
        told.append("loaded")
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
# ru_maxrss counts what the process was before exec, which is the test's own.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps(told), int(status["VmHWM"].split()[0]))
"""
MOST_BYTES = 2**30  # that loading, or refusing, any of these may take, with torch

Change = Callable[[Path], None]


def headed(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a header; `length` is what it says its own length is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def weights(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content) and None


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], name: str = "model") -> Change:
    def write(folder: Path) -> None:
        path = folder / f"{name}.safetensors"
        held = from_bytes(path.read_bytes())
        changed = change(held)
        save_file(held if changed is None else changed, path)

    return write


def described(**changes: Any) -> Change:
    def write(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        for name, value in changes.items():
            if name in ("visual", "audio", "text"):
                content["encoders"][name]["source"] = value
            else:
                content["config"][name] = value
        path.write_text(json.dumps(content))

    return write


def sparse(name: str, size: int) -> Change:
    def write(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return write


def link(name: str, target: str) -> Change:
    def write(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return write


def one(**fields: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}


def nan(held: dict[str, torch.Tensor]) -> None:
    next(v for _, v in sorted(held.items()) if v.is_floating_point()).fill_(float("nan"))


OVERLAP = {"a": one()["a"], "b": one()["a"]}
CASES: dict[str, Change] = {
    "lying header: beyond the file": weights("model.safetensors", headed(b"{}", length=10**6)),
    "lying header: 2^63": weights("model.safetensors", headed(b"{}", length=2**63)),
    "header of 100 MB": weights("model.safetensors", headed(b" " * 10**8)),
    "header that is no JSON": weights("model.safetensors", headed(b"{'a': 1}")),
    "deep header": weights("model.safetensors", headed(b'{"a":' * 100_000)),
    "offsets that overlap": weights("model.safetensors", headed(OVERLAP, bytes(8))),
    "offsets beyond the file": weights(
        "model.safetensors", headed(one(data_offsets=[0, 2**40]), bytes(4))
    ),
    "offsets below zero": weights("model.safetensors", headed(one(data_offsets=[-4, 4]), bytes(4))),
    "a shape that overflows": weights("model.safetensors", headed(one(shape=[2**62, 4]), bytes(4))),
    "an unknown kind of number": weights("model.safetensors", headed(one(dtype="Q8"), bytes(4))),
    "whole numbers": tensors(lambda held: {k: v.to(torch.int32) for k, v in held.items()}),
    "other shapes": tensors(lambda held: {k: v.flatten() for k, v in held.items()}),
    "a tensor less": tensors(lambda held: dict(list(held.items())[1:])),
    "a tensor more": tensors(lambda held: held.update(more=torch.zeros(1))),
    "weights that are NaN": tensors(nan),
    "a face network that is NaN": tensors(nan, "visual"),
    "a voice network that is NaN": tensors(nan, "audio"),
    "a lexicon that is NaN": tensors(nan, "text"),
    "100 GB of weights": sparse("model.safetensors", 100 * 2**30),
    "100 GB of encoder": sparse("visual.safetensors", 100 * 2**30),
    "100 GB of description": sparse("config.json", 100 * 2**30),
    "weights that are a device": link("model.safetensors", "/dev/zero"),
    "an encoder that is a device": link("visual.safetensors", "/dev/zero"),
    "a source above the folder": described(visual="../../../../etc/passwd"),
    "a source elsewhere": described(text="/etc/passwd"),
    "a source that is a device": described(audio="/dev/zero"),
    "a source that is the folder": described(audio="."),
    "a source with a zero byte": described(audio="a\0b"),
    "a source that is a number": described(audio=7),
    "a width of a terabyte": described(width=2**20, join_width=2**20),
    "wide": described(width=2**16, join_width=2**16, heads=1, join_heads=1),
    "a million layers": described(join_layers=10**6),
    "a million branches": described(join_branches=10**6),
    "a number of a thousand digits": described(width=10**1000),
    "layers of another type": described(join_layers="2"),
    "heads of a list": described(heads=[4]),
    "wide heads": described(head_widths=[10**12, 10**12]),
    "pooled by number": described(pooled=[1, {}]),
    "a rate without end": described(rate_hz=1e308),
    "deep JSON": weights("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
}


def test_hostile_model_folders_are_refused_in_one_line(toy: Path, tmp_path: Path) -> None:
    folders = []
    for k, change in enumerate(CASES.values()):
        folder = tmp_path / str(k)
        shutil.copytree(toy, folder)
        change(folder)
        folders.append((str(folder), "torch"))
    outcomes, peak_bytes = loaded([*folders, (str(toy), "torch")])
    assert outcomes[-1] == "loaded"
    wrong = {
        name: outcome
        for name, outcome in zip(CASES, outcomes, strict=False)
        if not one_line(outcome, ("ModelError", "EncoderError"))
    }
    assert not wrong
    assert peak_bytes < MOST_BYTES
    assert not any("root:" in outcome for outcome in outcomes)  # nothing of /etc/passwd is told


def loaded(folders: list[tuple[str, str]]) -> tuple[list[str], int]:
    run = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(folders),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    told, _, peak_kib = run.stdout.strip().rpartition(" ")
    return json.loads(told), int(peak_kib) * 1024


def one_line(outcome: str, kinds: tuple[str, ...]) -> bool:
    kind, _, message = outcome.partition(": ")
    return kind in kinds and 0 < len(message) < 600 and message.isprintable()


# Graphs

onnx = pytest.importorskip("onnx")


def graph(*nodes: Any, constants: Any = (), about: dict[str, Any] | None = None) -> Any:
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(list(nodes), "g", [], [value], list(constants)),
        opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("evil", 1)],
        ir_version=8,
    )
    entry = made.metadata_props.add()
    entry.key, entry.value = "maven", json.dumps(about or {"part": "network"})
    return made


def outside(place: str) -> Any:
    tensor = onnx.TensorProto(name="x", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return graph(onnx.helper.make_node("Identity", ["x"], ["y"]), constants=[tensor])


def huge() -> Any:
    shape = onnx.numpy_helper.from_array(np.array([2**40], np.int64), "n")
    return graph(onnx.helper.make_node("ConstantOfShape", ["n"], ["y"]), constants=[shape])


def graphs(secret: Path) -> dict[str, bytes]:
    foreign = graph(onnx.helper.make_node("Run", [], ["y"], domain="evil", command="id"))
    return {
        "data in another file": outside(str(secret)).SerializeToString(),
        "data above": outside(os.path.relpath(secret)).SerializeToString(),
        "data of this folder": outside("secret.bin").SerializeToString(),
        "an operator of their own": foreign.SerializeToString(),
        "a constant of 4 TB": huge().SerializeToString(),
        "not said what it is": graph(about={"part": ["x"]}).SerializeToString(),
        "said by a list": graph(about=[1]).SerializeToString(),  # type: ignore[arg-type]
        "a pickle": pickle.dumps(Bomb(secret.parent / "exploded")),
        "nothing": b"",
    }


def test_hostile_graphs_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "work" / "secret.bin"
    secret.parent.mkdir()
    secret.write_bytes(struct.pack("<f", 1.0))
    folders = []
    for k, content in enumerate(graphs(secret).values()):
        folder = tmp_path / str(k)
        shutil.copytree(MINI_FOLDER, folder, copy_function=os.link)
        for part in GRAPHS.values():
            (folder / part).unlink()
            (folder / part).write_bytes(content)
        folders.append((str(folder), "onnx"))
    monkeypatch.chdir(secret.parent)
    outcomes, peak_bytes = loaded([*folders, (str(MINI_FOLDER), "onnx")])
    assert outcomes[-1] == "loaded"
    wrong = [line for line in outcomes[:-1] if not one_line(line, ("ModelError",))]
    assert not wrong
    assert peak_bytes < MOST_BYTES
    assert not (secret.parent / "exploded").exists()


def test_a_graph_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    sparse("network.onnx", 2**40)(tmp_path)
    with pytest.raises(GraphError, match="bytes; accepted"):
        read_graph(tmp_path / "network.onnx", "network")


# Pickles


@pytest.mark.parametrize("wrapped", [False, True])
def test_published_checkpoints_with_code_are_refused(tmp_path: Path, wrapped: bool) -> None:
    path, trace = tmp_path / "best_model.pth", tmp_path / "exploded"
    if wrapped:
        torch.save({"a": torch.zeros(1), "b": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ConvertError, match="not a PyTorch checkpoint of tensors alone"):
        read_published(path)
    assert not trace.exists()


@pytest.mark.parametrize("shape", [(), (3,), (1, 1), (0, 0), (2, 2, 2)])
def test_published_names_with_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    names = ("multihead_attention.video_proj.weight", "multihead_attention.attn_v2a.in_proj_weight",
             "regressor.fc.0.bias", "multihead_attention.layer_norm.weight")  # fmt: skip
    for k in range(1, len(names) + 1):
        with pytest.raises(ConvertError, match="not a checkpoint of the published code"):
            convert_published({name: torch.zeros(shape) for name in names[:k]})


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_encoders_of_transformers_run_no_code(tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    trace = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(trace)))
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(trace)!r})\n")
    remote = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config = {"model_type": "swin", "auto_map": remote, "embed_dim": 8, "depths": [1]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_heads": [1]}))
    specs = {m: EncoderSpec("mini", f"{m}.safetensors") for m in ("audio", "text")}
    specs = {"visual": EncoderSpec("swin", str(tmp_path))} | specs
    with pytest.raises(EncoderError) as refused:
        build(specs, folder=MINI_FOLDER, device="cpu", offline=True)
    assert one_line(f"EncoderError: {refused.value}", ("EncoderError",))
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"{}", b"[", b'{"num_attention_heads": []}', b"[" * 100_000])
def test_a_beit_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    network = Maven(MavenConfig(8, 8, 8, width=16, join_width=16))
    with pytest.raises(ConvertError):
        start_beit(network, tmp_path, offline=True)


# Runs

HISTORIES: dict[str, Any] = {
    "no JSON": "{",
    "deep": "[" * 100_000,
    "a list": "[1]",
    "other fields": '{"colour": 1}',
    "no rows": '{"epoch": 3}',
    "counters below zero": '{"epoch": -1}',
    "a counter that is a word": '{"epoch": "x", "history": []}',
    "a best epoch to come": '{"best_epoch": 5}',
    "rows of words": '{"epoch": 1, "history": ["a"]}',
}


@pytest.mark.parametrize("text", HISTORIES.values(), ids=HISTORIES)
def test_a_run_whose_checkpoint_lies_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "last.safetensors", {"progress": text})
    with pytest.raises(TrainError, match=r"last\.safetensors is no checkpoint"):
        Run(tmp_path).progress()


@pytest.mark.parametrize(
    "names", [{"other.weight": 1}, {"adamw.x.exp_avg": 1}, {"adamw.9.exp_avg": 1},
              {"net.weight": 9}, {"net.weight": 1, "adamw.0.exp_avg": 7}]
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, names: dict[str, int]) -> None:
    run, net = Run(tmp_path), torch.nn.Linear(1, 1, bias=False)
    held = {name: torch.zeros(size, 1) for name, size in names.items()}
    about = {"progress": json.dumps(vars(Progress()))}
    save_file(held, tmp_path / "last.safetensors", about)
    with pytest.raises(TrainError, match="is not of this network"):
        run.restore({"net": net}, torch.optim.AdamW(net.parameters()))


def test_settings_of_a_run_are_no_program(tmp_path: Path) -> None:
    trace = tmp_path / "exploded"
    run = Run(tmp_path)
    for text in (f"!!python/object/apply:os.mkdir ['{trace}']", "[" * 1500, "- 1", "a: &a [*a"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(TrainError, match=r"config\.yaml cannot be read"):
            run.config()
    (tmp_path / "environment.json").write_text("[" * 100_000)
    with pytest.raises(TrainError, match=r"environment\.json cannot be read"):
        run.environment()
    assert not trace.exists()


def test_the_card_of_a_hostile_model_is_listed_as_broken(toy: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy, tmp_path / "model"))
    sparse("config.json", 2**40)(folder)
    with pytest.raises(ModelError, match="bytes; accepted"):
        read_card(folder)
    with pytest.raises(ModelError, match="bytes; accepted"):
        load_network(folder)
