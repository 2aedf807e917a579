"""The command that brings a corpus into a feature store by workers, as many as have room."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from maven.batching import (
    Address,
    Engine,
    Workers,
    check_engine,
    ending_in_order,
    engine_for,
    words_from,
)
from maven.terminal import (
    Debug,
    check_folder,
    check_writable,
    one_line_errors,
    progress_bar,
    refuse,
)

Root = Annotated[
    Path, typer.Argument(metavar="ROOT", help="A corpus, as Aff-Wild2.", show_default=False)
]


def features(
    root: Root,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="STORE", help="The feature store.")],
    encoders: Annotated[
        str, typer.Option(metavar="NAME", help="mini, paper or a model folder.")
    ] = "mini",
    asr: Annotated[
        str, typer.Option(metavar="NAME", help="Where there is no transcript, as for predict.")
    ] = "none",
    engine: Engine = "local",
    workers: Workers = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Cores of each process.", show_default="1 with mini"),
    ] = None,
    address: Address = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N].")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch anything.")] = False,
    debug: Debug = False,
) -> None:
    """Encode the faces, voices and words of a corpus into a store, each clip once.

    Run again after an interruption, or when the corpus has grown: what is there is kept, what was
    damaged is made anew. With --engine ray, all machines need to see corpus and store.
    """
    if threads is not None and not 1 <= threads <= 1024:
        refuse(f"--threads: got {threads}; accepted: 1 to 1024")
    check_engine(engine, workers, address)
    check_folder(root)
    check_writable(out)
    with one_line_errors(debug), progress_bar(root.name) as report, ending_in_order():
        from maven.batch.corpus import extract_by

        job = job_of(out, encoders, asr, device, offline)
        job["threads"] = threads or threads_for(job, engine, workers)
        try:
            manifest = extract_by(
                engine_for(engine, job, workers, address), root, out,
                progress=lambda _, done, total: report("videos", done, total),
                note=lambda line: print(f"Note: {line}", file=sys.stderr),
            )  # fmt: skip
        except KeyboardInterrupt:
            said = "stopped; what is finished is kept, the same command goes on"
            print(f"maven: {said}", file=sys.stderr)
            raise typer.Exit(1) from None
    for video, reason in manifest.failed:
        print(f"maven: left out {video}: {reason}", file=sys.stderr)
    print(
        f"{len(manifest.clips)} videos in {out / manifest.name}.json, features of"
        f" {', '.join(about['name'] for about in manifest.encoders.values())}"
    )
    if manifest.failed:
        raise typer.Exit(1)


def job_of(out: Path, encoders: str, asr: str, device: str, offline: bool) -> dict[str, Any]:
    """Settle here, once, what workers are told; what has to be fetched is: they fetch nothing.

    Raises:
        ModelError, EncoderError, RecogniserError: no such encoders, device or recogniser.
    """
    from maven.checkpoint import choose_device
    from maven.encoders.build import build
    from maven.extract import specs_of
    from maven.transcribe import Transcriber

    Transcriber(asr)  # refuses what is no name
    choose_device(device)
    _, specs, folder = specs_of(encoders)
    if not offline and any(spec.kind != "mini" for spec in specs.values()):
        build(specs, folder=folder, device="cpu", offline=False)  # to be fetched, then forgotten
    return {
        "kind": "features", "store": str(out.absolute()),
        "model": encoders if encoders in ("mini", "paper") else str(folder and folder.absolute()),
        "asr": words_from(asr, offline), "device": device, "offline": True,
    }  # fmt: skip


def threads_for(job: dict[str, Any], engine: str, workers: int | None) -> int:
    """How many cores a worker needs: one where each core has a worker of its own.

    On this machine, of workers that are few, each gets its share: memory holds no more of the large
    encoders, and a GPU needs a single one. On other machines of a cluster nobody knows here.
    """
    from maven.batch.local import default_workers
    from maven.checkpoint import choose_device
    from maven.confine import cores

    device = choose_device(job["device"])
    if engine == "ray" or (job["model"] == "mini" and device == "cpu"):
        return 1
    own = cores()
    fit = default_workers({**job, "device": device}, len(own))
    return max(len(own) // (workers or fit), 1)
