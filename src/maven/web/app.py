"""The application: API, pages, guard, and errors that are one line and name nothing of inside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from maven.web import api, live, rating
from maven.web.guard import Guard
from maven.web.jobs import Jobs, Options, StateError
from maven.web.shelf import NoClipError, Shelf

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/": "index.html",
    "/clips/{clip_id}": "clip.html",
    "/clips/{clip_id}/rate": "rate.html",
    "/compare": "compare.html",
    "/live": "live.html",
}
DESCRIPTION = (
    "Videos of talking people in, valence and arousal over time out. Errors are answered as"
    ' {"detail": "one line"}. A server on an address that is not the loopback asks for its token:'
    " Authorization: Bearer TOKEN."
)


def application(shelf: Shelf, jobs: Jobs, options: Options) -> FastAPI:
    """Put the application together; jobs begin and end with it."""
    from maven import __version__

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        jobs.start()
        yield
        jobs.close()
        shelf.close()

    app = FastAPI(
        title="maven",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # their scripts come from another server
        redoc_url=None,
    )
    app.include_router(api.router(shelf, jobs, options))
    app.include_router(rating.router(shelf))
    app.include_router(live.router(options))
    for path, name in PAGES.items():
        app.get(path, include_in_schema=False)(_page(name))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NoClipError, _missing)
    app.add_exception_handler(StateError, _conflict)
    app.add_middleware(
        Guard, hosts=options.hosts, token=options.token, upload_bytes=options.size_bytes
    )
    return app


def _page(name: str) -> Callable[[], FileResponse]:
    def page() -> FileResponse:
        if not (STATIC / name).is_file():
            raise HTTPException(404, "there is no such page")
        return FileResponse(STATIC / name)

    return page


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)


async def _missing(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 404)


async def _conflict(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 409)
