"""The API of ratings: traces come in, are kept, scored, compared, and go out as labels."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from maven.files import plain
from maven.ratings import (
    Floats,
    Rated,
    Trace,
    affwild2,
    against,
    agreement,
    combined,
    delays,
    find_lag,
    shifted,
)
from maven.web.intake import room
from maven.web.shelf import NoClipError, Shelf

POINTS = 500_000  # four hours at 35 a second
DIGITS = 4  # of times and values that are kept and given
EDGE_S = 1.0  # that a rating may reach over the clip's ends
RESULTS = "results.csv"  # in a clip's folder
NAMES = ("time_s", "valence", "arousal")

Series = Annotated[list[float], Field(min_length=2, max_length=POINTS, fail_fast=True)]
Number = Annotated[float, AfterValidator(lambda value: round(value, DIGITS))]
Maybe = Number | None  # null: undefined
Person = Annotated[int, Query(ge=0, description="Index among the people of the clip's view.")]
Shift = Annotated[
    bool, Query(description="Take each rater's delay against the prediction out of the times.")
]


class Given(BaseModel):
    """A rating as it is sent: one rater's valence and arousal of one person."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    rater: str
    person: int = 0
    time_s: Series = Field(description="Rising, on the clock of the media file.")
    valence: Series = Field(description="-1 to 1, one for each time.")
    arousal: Series = Field(description="-1 to 1, one for each time.")


class Rating(BaseModel):
    """A rating that is kept, without its points."""

    id: str
    rater: str
    person: int
    created: str = Field(description="ISO 8601, UTC.")
    points: int
    start_s: float
    end_s: float
    rated_s: Number = Field(description="Seconds that were rated, without gaps.")


class RatingList(BaseModel):
    """Ratings, oldest first."""

    ratings: list[Rating]


class RatingPoints(Rating):
    """A rating with its points."""

    time_s: list[float]
    valence: list[float]
    arousal: list[float]


class Pair(BaseModel):
    """One number for each of the two."""

    valence: Maybe
    arousal: Maybe


class Scored(Rating):
    """A rating against the prediction; the rating is taken for the truth."""

    latest: bool = Field(description="Whether it is the last one of its rater.")
    frames: int = Field(description="That are rated and predicted.")
    ccc: Pair
    ccc_mean: Maybe
    rmse: Pair
    sagr: Pair = Field(description="Share of frames with the same sign.")
    lag_s: Maybe = Field(description="How late the rating is; null: no clear maximum.")
    lag_low_s: Maybe = Field(description="From here ...")
    lag_high_s: Maybe = Field(description="... to here the CCC is at most 0.01 lower.")
    ccc_at_lag: Maybe


class Reliabilities(BaseModel):
    """Intraclass correlations (Shrout and Fleiss 1979)."""

    icc_single: Maybe = Field(description="ICC(2,1)")
    icc_mean: Maybe = Field(description="ICC(2,k)")
    consistency_single: Maybe = Field(description="ICC(3,1)")
    alpha: Maybe = Field(description="ICC(3,k), Cronbach's alpha.")


class Agreed(BaseModel):
    """How raters agree with each other, by the latest rating of each."""

    raters: list[str]
    overlap_s: Number = Field(description="Rated by all of them.")
    pairwise: list[list[Pair]] = Field(description="CCC of each with each.")
    mean_pairwise: Pair
    others: list[Pair] = Field(description="CCC of each with the mean of the others.")
    valence: Reliabilities
    arousal: Reliabilities


class PersonScores(BaseModel):
    """All ratings of a person, scored, and how their raters agree if there are two or more."""

    person: int
    ratings: list[Scored]
    agreement: Agreed | None


def router(shelf: Shelf) -> APIRouter:
    """Make the routes of ratings; how large a body may be is the guard's matter."""
    routes = APIRouter(prefix="/api/clips/{clip_id}", tags=["ratings"])
    schema = {"application/json": {"schema": Given.model_json_schema()}}
    body = {"requestBody": {"required": True, "content": schema}}

    @routes.post("/ratings", status_code=201, openapi_extra=body)
    async def add(clip_id: str, request: Request) -> Rating:
        """Keep a rating: points at rising times; further than 0.5 s apart they have a gap."""
        try:
            content = await request.body()
        except ClientDisconnect:
            raise HTTPException(
                400, "cut off: the connection ended before the rating did"
            ) from None
        return await run_in_threadpool(_add, shelf, clip_id, content)

    @routes.get("/ratings")
    def kept(clip_id: str, person: int | None = None) -> RatingList:
        """List the ratings of a clip, or of one person in it."""
        found = [r for r in shelf.ratings(clip_id) if person in (None, r["person"])]
        return RatingList(ratings=[Rating.model_validate(_about(rating)) for rating in found])

    @routes.get("/ratings/mean/affwild2", response_class=PlainTextResponse)
    def mean_labels(clip_id: str, person: Person = 0, shift: Shift = False) -> Response:
        """Give the mean of all raters, by the latest rating of each, as Aff-Wild2 labels."""
        latest = _latest(shelf.ratings(clip_id), person)
        if not latest:
            raise HTTPException(404, "nobody has rated this person yet")
        return _labels(shelf, clip_id, person, latest, shift, "")

    @routes.get("/ratings/{rating_id}")
    def points(clip_id: str, rating_id: str) -> RatingPoints:
        """Give a rating with its points."""
        rating = _find(shelf, clip_id, rating_id)
        return RatingPoints.model_validate({**rating, **_about(rating)})

    @routes.delete("/ratings/{rating_id}", status_code=204)
    def delete(clip_id: str, rating_id: str) -> Response:
        """Delete a rating."""
        shelf.delete_rating(clip_id, rating_id)
        return Response(status_code=204)

    @routes.get("/ratings/{rating_id}/affwild2", response_class=PlainTextResponse)
    def labels(clip_id: str, rating_id: str, shift: Shift = False) -> Response:
        """Give a rating as Aff-Wild2 labels: a line a frame, -5,-5 where nothing was rated."""
        rating = _find(shelf, clip_id, rating_id)
        return _labels(shelf, clip_id, rating["person"], [rating], shift, rating["rater"])

    @routes.get("/scores")
    def scores(clip_id: str, person: Person = 0) -> PersonScores:
        """Score the prediction against each rating, and raters against each other."""
        ratings = [r for r in shelf.ratings(clip_id) if r["person"] == person]
        latest = _latest(ratings, person)
        _, prediction = _answers(shelf, clip_id, person)
        rated = against([_trace(rating) for rating in ratings], prediction)
        newest = {rating["id"] for rating in latest}
        return PersonScores(
            person=person,
            ratings=[
                _scored(rating, rating["id"] in newest, found)
                for rating, found in zip(ratings, rated, strict=True)
            ],
            agreement=_agreed(latest) if len(latest) > 1 else None,
        )

    return routes


def _add(shelf: Shelf, clip_id: str, body: bytes) -> Rating:
    clip = shelf.clip(clip_id)
    room(shelf.place, len(body))
    try:
        given = Given.model_validate_json(body)
        rater = unicodedata.normalize("NFC", given.rater).strip()
        points = (np.round(getattr(given, name), DIGITS) for name in NAMES)
        trace = Trace(rater, given.person, *points)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(422, f"{place}: {first['msg']}") from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    frames_s, _ = _answers(shelf, clip_id, trace.person)
    first_s, last_s = frames_s[0], frames_s[-1]
    edge_s = max(EDGE_S, clip.length_s or 0.0)  # sound may begin before the picture, or end after
    if not first_s - edge_s <= trace.time_s[0] <= trace.time_s[-1] <= last_s + edge_s:
        came, there = f"{trace.time_s[0]:g} to {trace.time_s[-1]:g}", f"{first_s:g} to {last_s:g}"
        raise HTTPException(422, f"time_s goes from {came} s; the clip from {there} s")
    content = {"rater": trace.rater, "person": trace.person}
    content |= {name: getattr(trace, name).tolist() for name in NAMES}
    rating_id = shelf.add_rating(clip_id, content)
    return Rating.model_validate(_about(_find(shelf, clip_id, rating_id)))


def _find(shelf: Shelf, clip_id: str, rating_id: str) -> dict[str, Any]:
    for rating in shelf.ratings(clip_id):
        if rating["id"] == rating_id:
            return rating
    raise NoClipError("there is no such rating")


def _latest(ratings: Sequence[dict[str, Any]], person: int) -> list[dict[str, Any]]:
    """Those of a person, the last of each rater, in order of the raters' first."""
    return list({r["rater"]: r for r in ratings if r["person"] == person}.values())


def _trace(rating: dict[str, Any]) -> Trace:
    return Trace(*(rating[name] for name in ("rater", "person", *NAMES)))


def _undelayed(traces: Sequence[Trace], prediction: Trace) -> list[Trace]:
    lags_s = delays([find_lag(trace, prediction) for trace in traces])
    return [shifted(trace, lag_s) for trace, lag_s in zip(traces, lags_s, strict=True)]


def _about(rating: dict[str, Any]) -> dict[str, Any]:
    trace = _trace(rating)
    created = datetime.fromtimestamp(rating["created_s"], timezone.utc)
    return {
        "id": rating["id"],
        "rater": trace.rater,
        "person": trace.person,
        "created": created.isoformat(timespec="milliseconds"),
        "points": len(trace.time_s),
        "start_s": float(trace.time_s[0]),
        "end_s": float(trace.time_s[-1]),
        "rated_s": trace.rated_s,
    }


def _scored(rating: dict[str, Any], latest: bool, found: Rated) -> Scored:
    scores, lag = found.scores, found.lag
    values = {
        "latest": latest,
        "frames": scores.frames,
        "ccc": _pair((scores.ccc_valence, scores.ccc_arousal)),
        "ccc_mean": scores.ccc_mean,
        "rmse": _pair((scores.rmse_valence, scores.rmse_arousal)),
        "sagr": _pair((scores.sagr_valence, scores.sagr_arousal)),
        "lag_s": lag.lag_s,
        "lag_low_s": lag.low_s,
        "lag_high_s": lag.high_s,
        "ccc_at_lag": lag.ccc_at_lag,
    }
    return Scored.model_validate(plain(_about(rating) | values))


def _agreed(latest: Sequence[dict[str, Any]]) -> Agreed:
    found = agreement([_trace(rating) for rating in latest])
    values = {
        "raters": [rating["rater"] for rating in latest],
        "overlap_s": found.overlap_s,
        "pairwise": [[_pair(two) for two in row] for row in found.pairwise.T.tolist()],
        "mean_pairwise": _pair(found.mean_pairwise.tolist()),
        "others": [_pair(two) for two in found.others.tolist()],
        "valence": asdict(found.valence),
        "arousal": asdict(found.arousal),
    }
    return Agreed.model_validate(plain(values))


def _pair(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("valence", "arousal"), values, strict=True))


def _answers(shelf: Shelf, clip_id: str, person: int) -> tuple[Floats, Trace]:
    """Times (n,) of all frames of a clip, and what was predicted of a person."""
    if shelf.clip(clip_id).state != "done":
        raise HTTPException(409, "this clip has no result yet")
    people = _read(shelf.folder(clip_id) / RESULTS)
    if not 0 <= person < len(people):
        raise HTTPException(422, f"person is {person}; accepted: 0 to {len(people) - 1}")
    time_s, *va = people[person]
    held = np.isfinite(va).all(0)
    return time_s, Trace("maven", person, time_s[held], va[0][held], va[1][held])


def _read(path: Path) -> list[Floats]:
    """Read time, valence and arousal (3, n) of each person, in the order of the table."""
    people: dict[str, list[tuple[str, ...]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        head = next(rows)
        face, wanted = head.index("face_id"), [head.index(name) for name in NAMES]
        for row in rows:
            people.setdefault(row[face], []).append(tuple(row[k] or "nan" for k in wanted))
    return [np.array(rows, np.float64).T for rows in people.values()]


def _labels(
    shelf: Shelf,
    clip_id: str,
    person: int,
    ratings: Sequence[dict[str, Any]],
    shift: bool,
    rater: str,
) -> Response:
    """A label file to download, called after the video, as the corpus wants it, and the rater."""
    frames_s, prediction = _answers(shelf, clip_id, person)
    traces = [_trace(rating) for rating in ratings]
    if shift:
        traces = _undelayed(traces, prediction)
    stem = PurePath(shelf.clip(clip_id).name).stem
    name = re.sub(r"[/\\]", "_", f"{stem} {rater}".strip())
    head = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.txt"}
    return PlainTextResponse(affwild2(combined(traces, frames_s)), headers=head)
