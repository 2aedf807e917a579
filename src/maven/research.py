"""The commands of the research bench: corpora, features, training, scores.

Like those of `cli.py`, each is a function whose signature and docstring are its help.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from maven.extracting import Root, features
from maven.terminal import (
    Debug,
    check_files,
    check_folder,
    check_writable,
    check_writable_file,
    one_line_errors,
    progress_bar,
    refuse,
)

data = typer.Typer(help="Read and make corpora in the Aff-Wild2 layout.", no_args_is_help=True)
convert = typer.Typer(help="Take over weights from elsewhere.", no_args_is_help=True)

Config = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="A YAML file, see configs/.", show_default=False),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes, as train.epochs=20.", show_default=False),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N].")]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch anything.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="mini, a model folder or a hub id, for its network.")
]
Features = Annotated[Path, typer.Argument(metavar="ROOT|STORE", help="A corpus, or its features.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="train, val or test.")]


def attach(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(data, name="data")
    app.add_typer(convert, name="convert")
    for command in (features, train, evaluate, submit, ablate):
        app.command()(command)


@data.command("check")
def data_check(
    root: Root,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The findings as CSV.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Report what does not fit in a corpus: labels, frames, faces, media, names.

    Exit code 1 where anything is wrong, 0 where there are notes at most.
    """
    from rich.console import Console

    from maven.datasets.affwild2 import read_corpus
    from maven.datasets.check import check, summary
    from maven.render.corpus import print_findings, write_findings

    check_folder(root)
    if out is not None:
        check_writable_file(out)
    with one_line_errors(debug), progress_bar(root.name) as report:
        videos = read_corpus(root)
        findings = check(root, lambda done, total: report("check", done, total))
        counts = summary(videos)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_findings(findings, out)
    print_findings(counts, findings, Console(highlight=False))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@data.command("compose")
def data_compose(
    sources: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder with text, speech and faces.")
    ],
    split: Split,
    videos: Annotated[int, typer.Option(metavar="N", help="How many.")],
    seconds: Annotated[float, typer.Option(metavar="S", help="Length of each, 5 to 3600.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="ROOT", help="Of the corpus.")],
    seed: Annotated[int, typer.Option(metavar="K", help="Of all that is random.")] = 0,
    debug: Debug = False,
) -> None:
    """Compose videos with known valence and arousal from real faces, speech and sentences."""
    from maven.datasets.corpora import SourcesError
    from maven.datasets.write import write_corpus

    check_folder(sources)
    check_writable(out)
    with one_line_errors(debug), progress_bar(out.name) as report:
        try:
            notes = write_corpus(
                sources, split, videos, seconds, seed, out,
                lambda done, total: report("videos", done, total),
            )  # fmt: skip
        except (ValueError, SourcesError) as error:
            refuse(str(error))
    for note in notes:
        print(f"Note: {note}")
    print(f"Wrote {out}, split {split}: videos of {seconds:g} s, {videos}")


@convert.command("published")
def convert_published(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="best_model.pth")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="The model folder.")],
    heads: Annotated[
        int, typer.Option(metavar="N", help="Of the cross-modal attention; published: 2.")
    ] = 2,
    join_heads: Annotated[
        int | None, typer.Option(metavar="N", help="Of the BEiT layers; width / 64 as in BEiT.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn a checkpoint of the published code, either variant, into a model folder."""
    import hashlib

    from maven.checkpoint import ModelCard, save
    from maven.convert import convert_published, read_published
    from maven.encoders.build import PAPER

    if heads < 1 or (join_heads is not None and join_heads < 1):
        refuse("--heads and --join-heads: 1 or more")
    check_files([file])
    check_writable(out)
    with one_line_errors(debug, file):
        found = convert_published(read_published(file), heads, join_heads)
        origin = {
            "from": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "preset": found.preset,
            "notes": [
                *found.notes,
                "trained by the published code, which standardised the features of each segment by"
                " that segment's own mean and spread",
            ],
        }
        card = ModelCard(out.resolve().name, found.network.config, PAPER, 0.0, origin)
        save(found.network, card, out)
    for note in found.notes:
        print(f"Note: {note} (--join-heads sets it)")
    print(f"Wrote {out}: preset {found.preset}")


def train(
    config: Config = None,
    changes: Changes = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="RUN", help="Its folder; else runs/ and its name."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted.")
    ] = None,
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Train a network on features, as a configuration says.

    On several processes: torchrun --nproc-per-node N -m maven.cli train CONFIG; on several machines
    see docs/training.md.
    """
    from maven.render.progress import training_report

    if (config is None) == (resume is None):
        refuse("give a configuration, or --resume with the folder of a run, not both")
    if resume is not None and (changes or out):
        refuse("--resume goes on with a run as it was configured: no changes, no -o")
    resolved = None
    if config is not None:
        resolved = _resolved(config, changes or [], debug)
        folder = out or Path("runs") / resolved["name"]
        check_writable(folder)
    elif resume is not None:
        check_folder(folder := resume)
    with one_line_errors(debug):
        from maven.train import run_training

        with training_report() as report:
            result = run_training(
                resolved, folder, resume=resume is not None, report=report, offline=offline
            )
    if int(os.environ.get("RANK", "0")) == 0:
        for note in result["notes"]:
            print(f"Note: {note}")
        print(
            f"Best epoch {result['best_epoch']} of {result['epochs']}: CCC valence"
            f" {result['ccc_valence']:.4f}, arousal {result['ccc_arousal']:.4f}, mean"
            f" {result['ccc_mean']:.4f}; smoothed by {result['smoothing_s']:g} s:"
            f" {result['smoothed'][result['smoothing_s']]:.4f}"
        )
        print(f"Model: {folder / 'best'}")


def ablate(
    config: Config,
    changes: Changes = None,
    grid: Annotated[
        str, typer.Option(metavar="NAME", help="modalities, components or presets.")
    ] = "components",
    seeds: Annotated[int, typer.Option(metavar="N", help="Trainings of each variant.")] = 3,
    jobs: Annotated[int, typer.Option(metavar="N", help="Trainings at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Else runs/ablate-GRID.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train variants side by side on the same features, seeds and epochs; print a table.

    Run again after an interruption: what is finished is kept.
    """
    if seeds < 1 or jobs < 1:
        refuse("--seeds and --jobs: 1 or more")
    assert config is not None
    resolved = _resolved(config, changes or [], debug)
    with one_line_errors(debug):
        from maven.ablate import GRIDS, Trial, ablate
        from maven.render.ablation import markdown, write_ablation

        if grid not in GRIDS:
            refuse(f"--grid: got {grid!r}; accepted: {', '.join(GRIDS)}")
        folder = out or Path("runs") / f"ablate-{grid}"
        check_writable(folder)

        def report(trial: Trial, done: int, total: int) -> None:
            came = trial.failed or f"{trial.scores['as trained']['ccc_mean']:.4f}"
            print(f"{done}/{total} {trial.variant.name}, seed {trial.seed}: {came}", flush=True)

        trials = ablate(resolved, grid, seeds, folder, jobs, report)
        written = write_ablation(trials, folder, f"{grid}, {seeds} seeds")
    print(markdown(trials))
    for path in written:
        print(f"Wrote {path}")
    if any(trial.failed for trial in trials):
        raise typer.Exit(1)


def _resolved(config: Path, changes: list[str], debug: bool) -> dict[str, Any]:
    """Read a configuration and what the command line changes in it."""
    check_files([config])
    with one_line_errors(debug, config):
        from maven.recipe import TrainError, parse, parse_overrides, resolve

        try:
            content = parse(config.read_text(encoding="utf-8")) or {}
        except (UnicodeDecodeError, TrainError) as error:
            raise TrainError(f"{config}: {error}") from error
        try:
            overrides = parse_overrides(changes)
            resolved = resolve(content, overrides)
        except TrainError as error:
            refuse(f"{config}: {error}")
    if not (overrides.get("name") or content.get("name")):
        resolved["name"] = config.stem
    return resolved


def evaluate(
    model: Model,
    where: Features,
    split: Split = "val",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Tables and pictures.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="K", help="Of what is drawn at random.")] = 0,
    device: Device = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Score a model as the ABAW challenge does, by video, by modality, with intervals."""
    from rich.console import Console

    from maven import __version__
    from maven.checkpoint import load_network
    from maven.datasets.affwild2 import SPLITS
    from maven.evaluate import evaluate
    from maven.matching import clips_of
    from maven.render.scores import tables, write_evaluation

    check_folder(where)
    if split not in SPLITS:
        refuse(f"--split: got {split!r}; accepted: {', '.join(SPLITS)}")
    if seed < 0:
        refuse(f"--seed: got {seed}; accepted: 0 or more")
    if out is not None:
        check_writable(out)
    console = Console(highlight=False)
    with one_line_errors(debug), progress_bar(where.name) as report:
        found = load_network(model, device=device, offline=offline)
        read = clips_of(found, where, split, offline=offline, progress=report)
        with read as (clips, left_out):
            _tell(left_out)
            evaluation = evaluate(
                found.network, clips, found.card.smoothing_s, seed=seed,
                model_intervals=found.card.intervals, progress=report,
            )  # fmt: skip
        provenance = {
            "maven": __version__,
            "model": {"name": found.card.name, "weights_sha256": found.weights_hash},
            "data": where.resolve().name,
            "split": split,
            "left_out": left_out,
        }
        written = [] if out is None else write_evaluation(evaluation, out, provenance)
    for table in tables(evaluation):
        console.print(table)
    for path in written:
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)


def submit(
    model: Model,
    where: Features,
    sample: Annotated[Path, typer.Option(metavar="FILE", help="The organisers' sample.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE")] = Path("predictions.txt"),
    device: Device = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Answer every row of a submission sample, in its order."""
    from maven.checkpoint import load_network
    from maven.datasets.affwild2 import read_sample, write_submission
    from maven.evaluate import submission
    from maven.matching import clips_of

    check_folder(where)
    check_files([sample])
    check_writable_file(out)
    with one_line_errors(debug), progress_bar(where.name) as report:
        rows = read_sample(sample)
        found = load_network(model, device=device, offline=offline)
        wanted = {row.rpartition("/")[0] for row in rows}
        read = clips_of(found, where, None, names=wanted, offline=offline, progress=report)
        with read as (clips, left_out):
            _tell(left_out)
            va = submission(found.network, clips, rows, found.card.smoothing_s)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_submission(out, rows, va)
    print(f"Wrote {out}: {len(rows)} rows")


def _tell(left_out: list[str]) -> None:
    if left_out:
        print(f"Note: videos without features, left out: {len(left_out)}, {left_out[0]} for one")
