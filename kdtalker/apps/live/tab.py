"""Serve the Live tab: a page of its own with plain JavaScript, shown in a frame of the main page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from kdtalker.apps.live.service import LiveService

STATIC = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; connect-src 'self' ws: wss:; "
    "frame-ancestors 'self'",
    "Cache-Control": "no-cache",
}


def tab_router(service: LiveService) -> APIRouter:
    """Build the routes `/live` and its scripts; the media goes through `/v1/live`."""
    router = APIRouter()

    @router.get("/live")
    def page() -> FileResponse:
        return FileResponse(STATIC / "live.html", headers=_HEADERS)

    for path in STATIC.iterdir():
        if path.suffix in _KINDS:
            router.add_api_route(f"/live/{path.name}", _file(path), methods=["GET"], response_model=None)
    return router


def _file(path: Path):  # type: ignore[no-untyped-def]
    def answer() -> FileResponse:
        return FileResponse(path, media_type=_KINDS[path.suffix], headers=_HEADERS)

    return answer


def frame(token: str | None = None) -> str:
    """Format the frame of the main page that shows the tab, as HTML."""
    address = f"live?token={token}" if token else "live"
    return (
        f'<iframe id="live" src="{address}" title="Live" allow="microphone; autoplay" loading="lazy"></iframe>'
        f'<p><a href="{address}" target="_blank">Open it in a window of its own</a></p>'
    )
