"""The API: clips in, their states and results out. What a page does, a program can do as well."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from maven.web.content import safe_name
from maven.web.intake import hand_over, store, take_transcript, waiting_transcript
from maven.web.jobs import Jobs, Options
from maven.web.shelf import UPLOAD, Clip, Shelf, new_id
from maven.web.worker import FILES, PLAYABLE, POSTER, VIEW

ASR = re.compile(r"auto|none|pocketsphinx|whisper(:[a-z0-9][a-z0-9.-]{0,30})?")
KINDS = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "vtt": "text/vtt",
    "report": "text/html",
    "overlay": "video/mp4",
}


class Problem(BaseModel):
    """What every answer of an error holds."""

    detail: str = Field(description="One line: what came, and what is accepted.")


class Limits(BaseModel):
    """How large and long an upload may be."""

    size_bytes: int
    length_s: float


class About(BaseModel):
    """The server."""

    version: str
    model: str
    limits: Limits


class ClipSettings(BaseModel):
    """How a clip is analysed."""

    faces: Literal["main", "all"]
    asr: str
    transcript: str | None = Field(description="Name of the transcript that came along.")


class Overlay(BaseModel):
    """A video with the answer drawn into it, made when it is asked for."""

    state: Literal["none", "queued", "running", "done", "failed"]
    blur: bool = Field(description="Whether faces are blurred in it.")
    progress: float | None
    error: str | None


class ClipAnswer(BaseModel):
    """A clip, as far as it is."""

    id: str
    name: str
    created: str = Field(description="When it came: ISO 8601, UTC.")
    size_bytes: int
    length_s: float | None = Field(description="Null until it has been checked.")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: Literal["checking", "faces", "voice", "words", "answers", "writing"] | None
    progress: float | None = Field(description="0 to 1 of the whole; it never falls in a run.")
    position: int | None = Field(description="How many are before it in the queue.")
    error: str | None
    settings: ClipSettings
    files: list[Literal["csv", "parquet", "json", "vtt", "report"]]
    overlay: Overlay


class Clips(BaseModel):
    """All clips, newest first."""

    clips: list[ClipAnswer]


class TranscriptAnswer(BaseModel):
    """A transcript that waits for its video."""

    id: str


def router(shelf: Shelf, jobs: Jobs, options: Options) -> APIRouter:
    """Make the routes of clips, over a shelf and the jobs that work on it."""
    from maven import __version__

    def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
        return {status: {"model": Problem} for status in (*statuses, 422)}

    routes = APIRouter(prefix="/api")

    @routes.get("/about", tags=["server"])
    def about() -> About:
        """Say what this server runs and takes."""
        limits = Limits(size_bytes=options.size_bytes, length_s=options.length_s)
        return About(version=__version__, model=Path(options.model).name, limits=limits)

    @routes.post(
        "/clips",
        status_code=201,
        tags=["clips"],
        responses=problems(400, 404, 413, 415, 507),
        openapi_extra=BINARY,
    )
    async def upload(
        request: Request,
        name: Annotated[str, Query(max_length=1000, description="What the file is called.")],
        faces: Annotated[
            Literal["main", "all"], Query(description="The person on screen most, or everyone.")
        ] = "main",
        asr: Annotated[
            str,
            Query(description="Words by: auto, none, whisper, whisper:SIZE or pocketsphinx."),
        ] = "auto",
        transcript: Annotated[
            str | None, Query(description="Id of a transcript that was sent before.")
        ] = None,
    ) -> ClipAnswer:
        """Send a video or sound file, as the body; it is put into the queue."""
        if not ASR.fullmatch(asr):
            raise HTTPException(
                422, "asr: accepted: auto, none, whisper, whisper:SIZE, pocketsphinx"
            )
        text = None if transcript is None else waiting_transcript(shelf, transcript)
        clip_id = new_id()
        part = shelf.incoming / clip_id
        part.mkdir(mode=0o700)
        try:
            size_bytes = await store(request, part / UPLOAD, media=True)
            settings = {"faces": faces, "asr": asr, "transcript": None}
            if text is not None:
                settings["transcript"] = hand_over(text, part)
            part.rename(shelf.clips_folder / clip_id)
            try:
                clip = shelf.add(clip_id, safe_name(name), size_bytes, settings)
            except BaseException:
                shutil.rmtree(shelf.clips_folder / clip_id, ignore_errors=True)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        jobs.wake()
        return answer(clip, shelf)

    @routes.post(
        "/transcripts",
        status_code=201,
        tags=["clips"],
        responses=problems(400, 413, 415, 507),
        openapi_extra=BINARY,
    )
    async def add_transcript(
        request: Request,
        name: Annotated[str, Query(max_length=1000, description="With .srt, .vtt or the like.")],
    ) -> TranscriptAnswer:
        """Send a transcript, before the clip that it belongs to; it is kept until that comes."""
        return TranscriptAnswer(id=await take_transcript(request, name, shelf))

    @routes.get("/clips", tags=["clips"])
    def clips() -> Clips:
        """List all clips."""
        return Clips(clips=[answer(clip, shelf) for clip in shelf.clips()])

    @routes.get("/clips/{clip_id}", tags=["clips"], responses=problems(404))
    def clip(clip_id: str) -> ClipAnswer:
        """Say how far a clip is."""
        return answer(shelf.clip(clip_id), shelf)

    @routes.post("/clips/{clip_id}/cancel", tags=["clips"], responses=problems(404, 409))
    def cancel(clip_id: str) -> ClipAnswer:
        """Stop a clip that waits or runs, or the making of its overlay; its upload stays."""
        jobs.cancel(clip_id)
        return answer(shelf.clip(clip_id), shelf)

    @routes.post("/clips/{clip_id}/again", tags=["clips"], responses=problems(404, 409))
    def again(clip_id: str) -> ClipAnswer:
        """Put a clip that failed or was cancelled into the queue once more."""
        jobs.again(clip_id)
        return answer(shelf.clip(clip_id), shelf)

    @routes.delete("/clips/{clip_id}", status_code=204, tags=["clips"], responses=problems(404))
    def delete(clip_id: str) -> Response:
        """Stop a clip, and remove it with all its files and ratings."""
        jobs.delete(clip_id)
        return Response(status_code=204)

    @routes.post(
        "/clips/{clip_id}/overlay", status_code=202, tags=["results"], responses=problems(404, 409)
    )
    def overlay(
        clip_id: str, blur: Annotated[bool, Query(description="Blur all faces.")] = False
    ) -> ClipAnswer:
        """Have the answer drawn into the video; files/overlay has it when it is done."""
        jobs.overlay(clip_id, blur)
        return answer(shelf.clip(clip_id), shelf)

    results = APIRouter(
        prefix="/clips/{clip_id}", tags=["results"], responses=problems(404),
        default_response_class=FileResponse,
    )  # fmt: skip

    def result(clip_id: str, file: str, kind: str, called: str | None = None) -> FileResponse:
        clip = shelf.clip(clip_id)
        state = clip.overlay_state if file == FILES["overlay"] else clip.state
        path = shelf.folder(clip_id) / file
        if state != "done" or not path.is_file():
            raise HTTPException(404, "there is no such file of this clip (yet)")
        return FileResponse(path, media_type=kind, filename=called)

    @results.get("/view")
    def view(clip_id: str) -> FileResponse:
        """All that the result page shows, as JSON; its form is in docs/web.md."""
        return result(clip_id, VIEW, "application/json")

    @results.get("/media")
    def media(clip_id: str) -> FileResponse:
        """The clip in a form that browsers play; ranges of bytes are answered."""
        return result(clip_id, PLAYABLE, "video/mp4")

    @results.get("/poster")
    def poster(clip_id: str) -> FileResponse:
        """A picture of the clip (JPEG)."""
        return result(clip_id, POSTER, "image/jpeg")

    @results.get("/files/{kind}")
    def file(
        clip_id: str, kind: Literal["csv", "parquet", "json", "vtt", "report", "overlay"]
    ) -> FileResponse:
        """Download a result."""
        stem = Path(shelf.clip(clip_id).name).stem
        called = f"{stem}-{kind}" if kind in ("report", "overlay") else f"{stem}.maven"
        return result(clip_id, FILES[kind], KINDS[kind], f"{called}{Path(FILES[kind]).suffix}")

    routes.include_router(results)
    return routes


BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def answer(clip: Clip, shelf: Shelf) -> ClipAnswer:
    """Say what the database has of a clip."""
    created = datetime.fromtimestamp(clip.created_s, timezone.utc)
    return ClipAnswer.model_validate({
        **{name: getattr(clip, name) for name in (
            "id", "name", "size_bytes", "length_s", "state", "stage", "progress", "error",
        )},
        "created": created.isoformat(timespec="milliseconds"),
        "position": shelf.position(clip),
        "settings": dict(clip.settings),
        "files": list(clip.files),
        "overlay": {
            "state": clip.overlay_state,
            "blur": clip.overlay_blur,
            "progress": clip.overlay_progress,
            "error": clip.overlay_error,
        },
    })  # fmt: skip
