"""PyTorch modules as ONNX graphs: written, made small, compared with PyTorch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maven.portable import ABOUT

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # of any number that a graph gives, against PyTorch
OPSET = 18
HALVED_FROM = 1000  # numbers in a tensor: smaller ones are not worth a cast


class ExportError(Exception):
    """A model cannot be exported; the message is one line."""


def write_graph(
    module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any, path: Path, about: dict[str, Any]
) -> None:
    """Write a module as ONNX; `shapes` names its inputs and their dynamic axes.

    Raises:
        ExportError: PyTorch cannot export it.
    """
    try:
        with quiet(), torch.inference_mode():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=list(shapes),
                output_names=["answers"],
                optimize=False,
                verbose=False,
            )
            assert program is not None
            fold(program.model)
    except Exception as error:  # of any part of a compiler
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{path.name}: PyTorch cannot export this model: {reason}") from error
    model = program.model_proto
    strip(model)
    halve(model)
    model.metadata_props.add(key=ABOUT, value=json.dumps(about))
    path.write_bytes(model.SerializeToString())


def fold(model: Any) -> None:
    """Compute what is constant, and once what is there twice.

    The exporter's own optimiser would do more: it takes x + 1e-10 for x, also where x is 0.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    for _ in range(2):
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings and prints, which are about itself, from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def strip(model: onnx.ModelProto) -> None:
    """Take out what tells where in whose source each node comes from."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def halve(model: onnx.ModelProto) -> None:
    """Store weights as fp16 with a cast where that loses nothing."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < HALVED_FROM or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Largest absolute difference; infinite where the shapes differ or a number is none."""
    if one.shape != other.shape or not np.isfinite(one - other).all():
        return math.inf
    return float(np.abs(one - other).max(initial=0.0))


def checked(path: Path, differences: Iterable[float]) -> float:
    """Give the largest of a graph's differences from PyTorch; refuse one above `TOLERANCE`.

    Raises:
        ExportError: it is above, or the graph does not run.
    """
    try:
        largest = max(differences)
    except Exception as error:  # onnxruntime's kinds have no common parent of their own
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{path.name}: onnxruntime cannot run it: {reason}") from error
    if largest > TOLERANCE:
        raise ExportError(
            f"{path.name}: differs from PyTorch by {largest:.1e}; accepted: {TOLERANCE:g}"
        )
    return largest
