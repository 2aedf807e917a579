"""A source, which is a folder or the id of a model on the hub -> a folder with its files.

What is on disk is used as it is, without a look at the network; only what is missing is fetched,
and only where that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maven.encoders.base import EncoderError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in order of preference


def folder_of(
    source: str | Path,
    *,
    required: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """Return the folder that holds a model's files.

    Args:
        source: a folder, or the id of a model on the hub; a `Path` is never taken for an id.
        required: groups of file names; of each group the first that exists.
        optional: names of files to fetch along with them where they exist.
        revision: branch, tag or commit on the hub.
        offline: never use the network.

    Raises:
        EncoderError: no such folder or model, a file is missing, or the hub cannot be reached.
    """
    try:
        folder = Path(source).expanduser()
    except RuntimeError:  # "~somebody"
        raise EncoderError(f"{source}: no such home") from None
    if folder.is_dir():
        for names in required:
            if not any((folder / name).is_file() for name in names):
                raise EncoderError(f"{folder}: this folder has no {' or '.join(names)}")
        return folder
    if isinstance(source, Path):
        raise EncoderError(f"{source}: no such folder")
    return _from_hub(source, required, optional, revision, offline)


def _from_hub(
    source: str,
    required: Sequence[Sequence[str]],
    optional: Sequence[str],
    revision: str | None,
    offline: bool,
) -> Path:
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{source}, revision {revision}" if revision else source
    try:
        for on_disk in (True,) if offline else (True, False):
            for name in optional:
                _fetch(source, name, revision, on_disk)
            fetched = ((_fetch(source, name, revision, on_disk) for name in g) for g in required)
            found = [next(filter(None, group), None) for group in fetched]
            if found[0] is not None and None not in found:
                return found[0].parent
    except HFValidationError as error:
        raise EncoderError(f"{what}: neither a folder nor the id of a model on the hub") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise EncoderError(f"{what}: not on the hub, or not open to this user") from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise EncoderError(
            f"{what}: not on disk, and the hub cannot be reached; "
            "fetch it once with a network, or name a folder that holds it"
        ) from error
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(f"{what}: not on disk, and cannot be fetched ({reason})") from error
    names = " or ".join(required[found.index(None)])
    if offline:
        raise EncoderError(f"{what}: offline is asked for, and its {names} is not on disk")
    raise EncoderError(f"{what}: this model on the hub has no {names}")


def _fetch(source: str, name: str, revision: str | None, on_disk: bool) -> Path | None:
    """Return the path of one file, None where there is no such file (on disk, or on the hub)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name, revision=revision, local_files_only=on_disk))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError) and not on_disk:
            raise  # the hub did not answer
        return None
