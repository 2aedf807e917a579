"""Connections on which nobody asks for anything are closed, so that others can be made."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 20.0


class Patient(H11Protocol):
    """HTTP that waits for the head of the first request for `FIRST_REQUEST_S` and no longer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(FIRST_REQUEST_S, self._leave)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, so that nothing of the connection is kept."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self.cycle is None and self in self.connections:  # else it is a WebSocket by now
            self.transport.close()
