"""A file over HTTP, resumable: what came of it is kept, and the next attempt asks for the rest.

    GET url, Range: bytes=N-    → 206 and the bytes from N on, appended to PATH.part; whole and checked, it takes the name PATH

Processes that want the same file wait for the one that fetches it.
"""

import fcntl
import hashlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from chainrule.core.errors import CheckpointError

CHUNK = 2**20
TRIES = 3
"""Attempts without a single new byte before giving up; the wait between them doubles from half a second."""
TIMEOUT_S = 30.0


def fetch(
    url: str, path: Path, *, headers: Mapping[str, str] | None = None, size: int | None = None, sha256: str | None = None
) -> None:
    """Bring the file at ``url`` to ``path``; raises ``CheckpointError`` where it stops on the way or arrives damaged.

    ``headers`` (a token) go to the first host alone, never along a redirect. HTTP errors (404, 403) are the caller's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # another process was faster
            return
        try:
            _insist(url, file, headers or {}, size)
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise
            of = f" of {size:,}" if size else ""
            raise CheckpointError(
                f"the download of {path.name} stopped at {file.tell():,}{of} bytes ({_reason(error)}); "
                "what came is kept: run the same again, and it goes on from there"
            ) from error
        file.flush()
        os.fsync(file.fileno())
        _check(part, path.name, size, sha256)
        os.replace(part, path)


def begun(path: Path) -> int:
    """How many bytes of the file that is to be ``path`` earlier attempts have left."""
    part = _part(path)
    return part.stat().st_size if part.exists() else 0


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _insist(url: str, file: IO[bytes], headers: Mapping[str, str], size: int | None) -> None:
    """Ask for the rest until there is none, giving up after ``TRIES`` attempts in a row that brought nothing."""
    failed = 0
    while True:
        before = file.tell()
        try:
            _rest(url, file, headers, size)
            return
        except (OSError, HTTPException) as error:
            failed = 0 if file.tell() > before else failed + 1
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            if status == 416 and before:  # nothing stands behind what came, so that is no beginning of what is there
                _emptied(file)
                continue
            final = status is not None and status != 429
            if final or failed == TRIES:
                raise
            time.sleep(0.5 * 2**failed)


def _rest(url: str, file: IO[bytes], headers: Mapping[str, str], size: int | None) -> None:
    at = file.seek(0, os.SEEK_END)
    if size is not None and at == size:
        return
    if size is not None and at > size:
        at = _emptied(file)  # of a file that has been published anew since
    request = urllib.request.Request(url, headers={"User-Agent": "chainrule"} | ({"Range": f"bytes={at}-"} if at else {}))
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if at and not (response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {at}-")):
            at = _emptied(file)  # the server sends it from the beginning
        length = response.headers.get("Content-Length")
        whole = size if size is not None else at + int(length) if length else None
        _copy(response, file, whole)
    if whole is not None and (file.tell() < whole if size is not None else file.tell() != whole):  # too much is told later
        raise ConnectionError("the connection was closed early")


def _emptied(file: IO[bytes]) -> int:
    """Throw away what came, so that the file begins anew; returns its length."""
    file.truncate(0)
    return file.seek(0)


def _copy(response: HTTPResponse, file: IO[bytes], whole: int | None) -> None:
    shown = 0.0
    while chunk := response.read(CHUNK):
        file.write(chunk)
        if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            of = f" of {whole / 1e6:,.0f}" if whole else ""
            print(f"\r{file.tell() / 1e6:,.0f}{of} MB ", end="", file=sys.stderr, flush=True)


def _check(part: Path, name: str, size: int | None, sha256: str | None) -> None:
    """Throw away what is not what the server announced."""
    got = part.stat().st_size
    if size is not None and got != size:
        part.unlink()
        raise CheckpointError(f"{name} came with {got:,} bytes instead of {size:,}; it was thrown away: run the same again")
    if sha256:
        digest = sha256_of(part)
        if digest != sha256.lower():
            part.unlink()
            raise CheckpointError(
                f"{name} arrived damaged (its sha256 is {digest[:12]}…, not {sha256[:12]}…); run the same again"
            )


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__
