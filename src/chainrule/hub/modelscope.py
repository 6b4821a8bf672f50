"""Models of ModelScope: ``modelscope:org/name`` or ``modelscope:org/name@revision``, by its HTTP API alone.

    GET /api/v1/models/ID/repo/files?Revision=R&Recursive=true   → Data.Files: Path, Size, Sha256, Type
    GET /models/ID/resolve/R/PATH                                → the file

Honoured: MODELSCOPE_DOMAIN (another site, or an address with http://), MODELSCOPE_CACHE, MODELSCOPE_API_TOKEN, and the
two switches that forbid the network, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chainrule.core.errors import CheckpointError, DataError
from chainrule.core.files import read_json_object, write_text
from chainrule.hub.fetch import TIMEOUT_S, fetch, sha256_of
from chainrule.hub.huggingface import ADAPTER, SMALL, first_line, indexed, no_weights, offline_by
from chainrule.hub.links import inside
from chainrule.hub.trace import Stopwatch
from chainrule.hub.weight_files import INDEX, PICKLED, PICKLED_INDEX, SINGLE, is_whole
from chainrule.tokenizers.published import has_tokenizer

File = Mapping[str, Any]
"""What the site says of a file: its Path, Size and Sha256."""
FETCHED = ".sha256.json"
"""The file of a folder that says which sha256 each of its files had at the site when it was fetched or last compared."""


def download(name: str, revision: str | None, *, pickle: bool, watch: Stopwatch) -> Path:
    """The folder of a model, complete; raises ``CheckpointError`` saying why it is not there and what to type next."""
    whole = partial(is_whole, pickle=True)  # pickles that nobody asked for are refused by who reads them
    return _fetched(name, revision, whole, partial(_needed, name, pickle), watch)


def download_adapter(name: str, revision: str | None, *, watch: Stopwatch) -> Path:
    """The folder of an adapter that PEFT wrote: its config and its tensors."""

    def whole(folder: Path) -> bool:
        return all((folder / file).exists() for file in ADAPTER)

    return _fetched(name, revision, whole, lambda files, _: _among(ADAPTER, files), watch)


def download_tokenizer(name: str, revision: str | None, *, watch: Stopwatch) -> Path:
    """The folder of a model with its small files, the tokenizer among them."""
    return _fetched(name, revision, has_tokenizer, lambda files, _: _among(SMALL, files), watch)


def _fetched(
    name: str,
    revision: str | None,
    complete: Callable[[Path], bool],
    wanted: Callable[[Sequence[File], Path], Iterable[File]],
    watch: Stopwatch,
) -> Path:
    """The folder of a model with the ``wanted(files, folder)``; what is ``complete`` is used where the site cannot be asked."""
    branch = revision or "master"
    folder = _place(name, branch)
    there = complete(folder)
    if forbidden := offline_by():
        if not there:
            raise CheckpointError(f"{_absent(name, folder)}, and {forbidden} forbids fetching it; unset it")
        return folder
    files = _files(name, branch, folder, there)
    if files is not None:
        _bring(name, branch, wanted(files, folder), folder, watch)
    return folder


def _among(patterns: Sequence[str], files: Sequence[File]) -> list[File]:
    """The files of these names."""
    return [file for file in files if any(fnmatch(str(file["Path"]), pattern) for pattern in patterns)]


def _bring(name: str, branch: str, files: Iterable[File], folder: Path, watch: Stopwatch) -> None:
    """Fetch those of the files that are not here yet, or were published anew, each before the next is asked for."""
    record = folder / FETCHED
    fetched = read_json_object(record, "remove it", error=CheckpointError) if record.exists() else {}
    for file in files:
        path, sha256 = inside(folder, str(file["Path"])), str(file.get("Sha256") or "").lower()
        known = fetched.get(str(file["Path"])) == sha256
        if not _is_here(path, file.get("Size"), "" if known else sha256):
            path.unlink(missing_ok=True)
            _file(name, branch, file, path)
            watch.lap("download", f"{name}: {file['Path']}", file=path, size_bytes=path.stat().st_size)
        if sha256 and not known:
            fetched[str(file["Path"])] = sha256
            with suppress(DataError):  # a cache that may only be read is compared anew each time
                write_text(record, json.dumps(fetched, indent=2))


def _is_here(path: Path, size: int | None, sha256: str) -> bool:
    """Whether a file is here in that size and with that sha256; what is not known of it is not asked."""
    if not path.exists() or size not in (None, path.stat().st_size):
        return False
    return not sha256 or sha256_of(path) == sha256


def cached(name: str, revision: str | None, *, pickle: bool) -> Path | None:
    """The folder of a model in the cache, if it is there with all its weights; the network is not asked."""
    folder = _place(name, revision or "master")
    return folder if is_whole(folder, pickle=pickle) else None


def _place(name: str, branch: str) -> Path:
    """Where a branch of a model is kept."""
    cache = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope/hub").expanduser()
    return cache / "models" / (name if branch == "master" else f"{name}@{quote(branch, safe='')}")


def _absent(name: str, folder: Path) -> str:
    """What the cache lacks, in words."""
    return f"{name} is {'only in part' if folder.exists() else 'not'} in the cache ({folder})"


def _files(name: str, branch: str, folder: Path, there: bool) -> list[dict[str, Any]] | None:
    """What the model holds; None where the site cannot be reached, or is out of order, and all is ``there`` already."""
    url = f"{endpoint()}/api/v1/models/{quote(name)}/repo/files?Revision={quote(branch, safe='')}&Recursive=true"
    request = urllib.request.Request(url, headers={"User-Agent": "chainrule"})
    for key, value in _token().items():
        request.add_unredirected_header(key, value)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer = json.load(response)
        return [file for file in answer["Data"]["Files"] if file.get("Type") != "tree"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        if there and (status is None or status >= 500):
            return None
        if status is not None:
            raise CheckpointError(_why(name, branch, status)) from error
        raise CheckpointError(
            f"{_absent(name, folder)}, and {endpoint()} gives no list of its files ({first_line(error)}); "
            "give a folder, or set MODELSCOPE_DOMAIN to another site"
        ) from error


def _needed(name: str, pickle: bool, files: Sequence[File], folder: Path) -> Iterator[File]:
    """The small files and one set of weights: a single file, or an index and, once that is in the folder, what it names."""
    by_path = {str(file["Path"]): file for file in files}
    kinds = [(SINGLE, INDEX)] + [(PICKLED, PICKLED_INDEX)] * pickle
    weights = next((path for pair in kinds for path in pair if path in by_path), None)
    if weights is None:
        raise no_weights(name, pickle)
    yield from _among([*SMALL, weights], files)
    if weights in (INDEX, PICKLED_INDEX):
        for shard in indexed(folder / weights):
            if shard not in by_path:
                raise CheckpointError(
                    f"{name} lacks {shard}, which its {weights} names; give another revision: modelscope:{name}@REVISION"
                )
            yield by_path[shard]


def _file(name: str, branch: str, file: File, path: Path) -> None:
    url = f"{endpoint()}/models/{quote(name)}/resolve/{quote(branch, safe='')}/{quote(file['Path'])}"
    try:
        fetch(url, path, headers=_token(), size=file.get("Size"), sha256=file.get("Sha256") or None)
    except urllib.error.HTTPError as error:
        raise CheckpointError(_why(name, branch, error.code)) from error


def endpoint() -> str:
    """The address of the site."""
    domain = os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    return (domain if "://" in domain else f"https://{domain}").rstrip("/")


def _token() -> dict[str, str]:
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    return {"Cookie": f"m_session_id={token}"} if token else {}


def _why(name: str, branch: str, status: int) -> str:
    if status in (401, 403):
        return (
            f"{name} may not be read by everybody: ask for access at {endpoint()}/models/{name}, "
            "then: export MODELSCOPE_API_TOKEN=..."
        )
    if status == 404:
        return f"{endpoint()} has no model {name} with a revision {branch!r}; check the spelling"
    return f"{endpoint()} answers {status} when asked for {name}; try again later"
