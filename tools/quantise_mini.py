"""Make the graphs that `mini` ships, the face network's in int8.

    python tools/train_mini.py prepare --sources DATA --work runs/mini   # once
    python tools/quantise_mini.py --work runs/mini

To be run after every change of the weights in `src/maven/weights/mini`. Weights of the convolutions
have 7 bits, which no processor's 8-bit products overflow; the first convolution, pooling and what
follows stay fp32. Ranges are those of training faces; the mean error on these is taken out of the
last layer. Faces of the validation part say whether the result is near enough.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from maven.checkpoint import MINI_FOLDER, write
from maven.export import export
from maven.portable import ABOUT, GRAPHS, OnnxVisual, read_graph

# isort: split
# After maven, which has onnxruntime tell nobody of this process: it looks when it is imported.
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION = 512  # training faces
BATCH = 16
TOLERANCE = 0.01  # RMS of the face's valence and arousal, against fp32
INT8 = {"precision": "int8", "tolerance": TOLERANCE}
QUANTISED = ("Conv", "Add", "Relu")
Array = np.ndarray[Any, np.dtype[Any]]


class Faces(CalibrationDataReader):  # type: ignore[misc]
    """Crops (n, 56, 56, 3), a batch at a time."""

    def __init__(self, crops: Array) -> None:
        self.batches: Iterator[Array] = iter(np.split(crops, range(BATCH, len(crops), BATCH)))

    def get_next(self) -> dict[str, Array] | None:
        """Give the next batch, or None."""
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch}


def faces_of(work: Path, split: str, limit: int | None = None) -> Array:
    """Read the crops of a split of faces.npz, or that many of them, as RGB (n, 56, 56, 3)."""
    with np.load(work / "faces.npz") as content:
        chosen = np.flatnonzero(content["splits"] == split)
        grey = content["crops"][np.random.default_rng(0).permutation(chosen)[:limit]]
    return np.repeat(grey[..., None], 3, 3)


def quantise(graph: Path, crops: Array, out: Path) -> None:
    """Write the int8 version of a visual encoder's graph, with ranges of `crops`."""
    with tempfile.TemporaryDirectory() as folder:
        plain, rough = Path(folder) / "plain.onnx", Path(folder) / "rough.onnx"
        quant_pre_process(graph, plain, skip_symbolic_shape=True)
        nodes = list(onnx.load(plain).graph.node)
        places = [k for k, node in enumerate(nodes) if node.op_type == "Conv"]
        pooling = next(k for k, node in enumerate(nodes) if node.op_type == "ReduceMax")
        kept = [*nodes[: places[1]], *nodes[pooling:]]
        quantize_static(
            plain,
            rough,
            Faces(crops),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=[node.name for node in kept],
        )
        model = onnx.load(rough)
    source = onnx.load(graph, load_external_data=False)
    about = json.loads(next(entry.value for entry in source.metadata_props if entry.key == ABOUT))
    del model.metadata_props[:]
    model.metadata_props.add(key=ABOUT, value=json.dumps(about | INT8))
    out.write_bytes(model.SerializeToString())


def centre(graph: Path, error: Array) -> None:
    """Take a mean error (9,) out of the biases of the layers that are joined at the end."""
    model = onnx.load(graph)
    layers = {node.output[0]: node for node in model.graph.node if node.op_type == "Gemm"}
    joined = [node for node in model.graph.node if layers.keys() >= set(node.input) and node.input]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    done = 0
    for name in joined[-1].input:
        tensor = tensors[layers[name].input[2]]
        bias = numpy_helper.to_array(tensor)
        moved = bias - error[done : done + len(bias)].astype(bias.dtype)
        tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
        done += len(bias)
    assert done == len(error), done
    graph.write_bytes(model.SerializeToString())


def rms(one: Array, other: Array) -> float:
    """Root mean square difference of valence and arousal."""
    return float(np.sqrt(np.square(one[:, :2] - other[:, :2]).mean()))


def main() -> None:
    """Export, quantise, check, and write the graphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/mini"))
    parser.add_argument("--out", type=Path, default=MINI_FOLDER)
    arguments = parser.parse_args()
    train, val = faces_of(arguments.work, "train", CALIBRATION), faces_of(arguments.work, "val")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "mini"
        export("mini", made)
        visual = made / GRAPHS["visual"]
        plain = OnnxVisual(read_graph(visual, "visual"))
        small = Path(folder) / "int8.onnx"
        quantise(visual, train, small)
        centre(small, (OnnxVisual(read_graph(small, "visual"))(train) - plain(train)).mean(0))
        difference = rms(OnnxVisual(read_graph(small, "visual"))(val), plain(val))
        print(f"int8 against fp32 on {len(val)} validation faces: {difference:.4f} RMS")
        if difference > TOLERANCE:
            raise SystemExit(f"above {TOLERANCE}: nothing written")
        small.replace(visual)
        (arguments.out / "onnx").mkdir(parents=True, exist_ok=True)
        for file in GRAPHS.values():
            write(arguments.out / file, (made / file).read_bytes())


if __name__ == "__main__":
    main()
