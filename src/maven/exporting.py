"""The command that writes a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maven.research import Offline
from maven.terminal import Debug, check_writable, one_line_errors, refuse


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="mini, a model folder, or a hub id.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="The folder; a new one.")
    ],
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Write a model as ONNX, for --runtime onnx and other programs.

    Every graph is checked against PyTorch. A model with other encoders than mini's: its network
    alone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        refuse(f"-o: {out} is there already; give a new folder")
    check_writable(out)
    with one_line_errors(debug):
        from maven.export import export

        made = export(model, out, offline=offline)
    for modality, kind in made.left_out.items():
        print(f"Note: no graph of the {modality} encoder, which is of kind {kind}")
    shown = ", ".join(f"{name} {difference:.0e}" for name, difference in made.differences.items())
    print(f"Wrote {out}: largest differences from PyTorch: {shown}")
