"""Models of the Hugging Face hub: ``org/name`` or ``org/name@revision``, from the cache or by download.

huggingface_hub knows the hub: which commit a revision is, which files there are, who may read them, and how its cache looks, so
that other programs find what we fetch and we what they fetched. It brings the small files; the weights come through
``hub.fetch``, which can go on with half a file after an interruption, into the place where the library looks for them.

Honoured when a model is loaded: HF_ENDPOINT (a mirror), HF_HOME and HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE and
TRANSFORMERS_OFFLINE. Nothing but what a model needs is downloaded, and pickles only where they are asked for.
"""

import os
import re
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from chainrule.core.errors import CheckpointError
from chainrule.hub.fetch import begun, fetch
from chainrule.hub.trace import Stopwatch
from chainrule.hub.weight_files import INDEX, PICKLED, PICKLED_INDEX, SINGLE, is_whole, refuse_pickles, shard_names

T = TypeVar("T")
SMALL = [
    "config.json", "generation_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "encoder.json", "spiece.model", "*.tiktoken",
    "tiktoken.model", "*.jinja", "chat_template.json", "modules.json", "sentence_bert_config.json", "*_Pooling/config.json",
]  # fmt: skip
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
EXPIRED = (401, 403, 410)
"""What another host answers whose signed address is no longer good: it lasts an hour or so, a long download does not."""
ROUNDS = 2
"""Addresses in a row that bring no new byte before giving up."""


def download(name: str, revision: str | None, *, pickle: bool, watch: Stopwatch) -> Path:
    """The folder of a model, complete; raises ``CheckpointError`` saying why it is not there and what to type next."""
    hub = _Hub(name, revision)
    folder = _small_files(hub, [*SMALL, INDEX] + [PICKLED_INDEX] * pickle, "config, tokenizer, template", watch)
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{name} holds no config.json, so it is no model in the Hugging Face layout; give one that does")
    for file in _weights(hub, folder, pickle):
        if not (folder / file).exists():
            hub.weight(folder, file)
            watch.lap("download", f"{name}: {file}", file=folder / file, size_bytes=(folder / file).stat().st_size)
    return folder


def cached(name: str, revision: str | None, *, pickle: bool) -> Path | None:
    """The folder of a model in the cache, if it is there with all its weights; the network is not asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    where = _Hub(name, revision).where
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, **where))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if is_whole(folder, pickle=pickle) else None


def download_adapter(name: str, revision: str | None, *, watch: Stopwatch) -> Path:
    """The folder of an adapter that PEFT wrote: its config and its tensors."""
    hub = _Hub(name, revision)
    folder = _small_files(hub, [ADAPTER[0]], "an adapter's config", watch)
    config, file = ADAPTER
    if (folder / config).exists() and not (folder / file).exists() and hub.has(folder, file):
        hub.weight(folder, file)
        watch.lap("download", f"{name}: {file}", file=folder / file, size_bytes=(folder / file).stat().st_size)
    return folder


def download_tokenizer(name: str, revision: str | None, *, watch: Stopwatch) -> Path:
    """The folder of a model with its small files, the tokenizer among them."""
    return _small_files(_Hub(name, revision), SMALL, "config, tokenizer, template", watch)


def _small_files(hub: "_Hub", patterns: list[str], what: str, watch: Stopwatch) -> Path:
    """The folder of a model in the cache, with its small files of these names."""
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    class Quiet(tqdm):
        """No bars of the library's own for the small files."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    settings: dict[str, Any] = {"local_files_only": bool(hub.offline), "tqdm_class": Quiet} | hub.where
    folder = Path(hub.ask(lambda: snapshot_download(hub.name, revision=hub.revision, allow_patterns=patterns, **settings)))
    watch.lap("download", f"{hub.name} at commit {folder.name[:12]}: {what}", file=folder)
    return folder


def _weights(hub: "_Hub", folder: Path, pickle: bool) -> list[str]:
    """The files of weights that the model is made of; none where the hub cannot be asked and the cache has all the pickles."""
    try:
        for single, index in [(SINGLE, INDEX)] + [(PICKLED, PICKLED_INDEX)] * pickle:
            if (folder / index).exists():
                return indexed(folder / index)
            if (folder / single).exists() or hub.has(folder, single):
                return [single]
    except CheckpointError as error:
        if not is_whole(folder, pickle=True):
            raise
        if not pickle:
            raise CheckpointError(f"{error}; the cache has pickles: if you trust them, say pickle=True (--pickle)") from error
        return []
    raise no_weights(hub.name, pickle)


def no_weights(name: str, pickle: bool) -> CheckpointError:
    """What to say of a model that has none of the weights that were asked for."""
    asked = "neither safetensors nor a pickle" if pickle else "no safetensors"
    hint = "" if pickle else f"; if it has {PICKLED} and you trust it, say pickle=True (--pickle)"
    return CheckpointError(f"{name} publishes {asked}{hint}")


def indexed(index: Path) -> list[str]:
    """The files that an index which was fetched names, each in the model's own folder."""
    names = shard_names(index, "remove it, and it is fetched again")
    strange = [name for name in names if not re.fullmatch(r"[\w.-]+", name) or name.startswith(".")]
    if strange:
        raise CheckpointError(f"{index} names {strange[0]!r}, which is no file of the model's own folder; give another model")
    refuse_pickles(index, names)
    return names


class _Hub:
    """One model of the hub, and how this machine reaches it."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self.revision = name, revision
        self.offline = offline_by()
        self.endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
        cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
        # read here and passed on: the library reads them only once, when it is imported
        self.where: dict[str, Any] = {
            "endpoint": self.endpoint,
            "cache_dir": os.path.expandvars(os.path.expanduser(cache)),
            "token": os.environ.get("HF_TOKEN") or None,
        }

    def has(self, folder: Path, file: str) -> bool:
        """Whether the model holds that file."""
        from huggingface_hub.errors import EntryNotFoundError

        if self.offline:
            raise self._forbidden(file)
        try:
            return bool(self.ask(lambda: self._metadata(folder, file)))
        except CheckpointError as error:
            if isinstance(error.__cause__, EntryNotFoundError):
                return False
            raise

    def weight(self, folder: Path, file: str) -> None:
        """Fetch a large file into the cache, going on with what an earlier attempt has left."""
        from huggingface_hub import hf_hub_download

        if self.offline:
            raise self._forbidden(file)
        self.ask(lambda: self._insist(folder, file))
        self.ask(lambda: hf_hub_download(self.name, file, revision=folder.name, **self.where))

    def _insist(self, folder: Path, file: str) -> None:
        """Ask where the file is, and fetch it from there; where that address has expired on the way, ask again."""
        failed = 0
        while True:
            meta = self._metadata(folder, file)
            blob = folder.parent.parent / "blobs" / str(meta.etag)
            before = begun(blob)
            try:
                return self._fetch(meta, blob)
            except urllib.error.HTTPError as error:
                failed = 0 if begun(blob) > before else failed + 1
                if error.code not in EXPIRED or self._is_ours(error.geturl()) or failed == ROUNDS:
                    raise

    def _fetch(self, meta: Any, blob: Path) -> None:
        from huggingface_hub.utils import build_hf_headers

        if blob.exists():
            return
        token = build_hf_headers(token=self.where["token"]).get("authorization") if self._is_ours(meta.location) else None
        sha256 = meta.etag if re.fullmatch(r"[0-9a-f]{64}", meta.etag or "") else None
        fetch(meta.location, blob, headers={"Authorization": token} if token else {}, size=meta.size, sha256=sha256)

    def _is_ours(self, url: str) -> bool:
        """Whether an address is one of the endpoint itself, the only host that may see the token."""
        return same_host(url, self.endpoint)

    def _forbidden(self, file: str) -> CheckpointError:
        where = self.where["cache_dir"]
        return CheckpointError(
            f"{self.name}: {file} is not in the cache ({where}), and {self.offline} forbids fetching it; "
            f"with a network: unset {self.offline}"
        )

    def _metadata(self, folder: Path, file: str) -> Any:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.name, file, revision=folder.name, endpoint=self.endpoint)
        return get_hf_file_metadata(url, token=self.where["token"])

    def ask(self, question: Callable[[], T]) -> T:
        """An answer of the hub; what goes wrong becomes one message that says what to type next."""
        try:
            return question()
        except CheckpointError:
            raise
        except Exception as error:  # the errors of the libraries below have no common ancestor over their versions
            raise CheckpointError(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        from huggingface_hub import errors

        what = f"{self.name}@{self.revision}" if self.revision else self.name
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
        if isinstance(error, urllib.error.HTTPError) and not self._is_ours(error.geturl()):
            return (
                f"{what} has weights at {urlsplit(error.geturl()).netloc}, which answers {status} although {self.endpoint} "
                "sends everybody there; what came is kept: run the same again, later if need be"
            )
        if isinstance(error, errors.GatedRepoError) or status == 403:
            return (
                f"{what} is gated: ask for access at {self.endpoint}/{self.name}, make a token at "
                f"{self.endpoint}/settings/tokens, then: export HF_TOKEN=hf_..."
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return f"{self.name} has no revision {self.revision!r}; give a branch, tag or commit that it has, or none"
        if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            return (
                f"{what} is neither a folder here nor a model at {self.endpoint}; check the spelling (a private one needs a "
                "token: export HF_TOKEN=hf_...)"
            )
        if isinstance(error, errors.EntryNotFoundError) and status == 404:
            return f"{what} lacks a file that it should have: {str(error).splitlines()[0]}"
        if self.offline:
            return str(self._forbidden("config.json"))
        return (
            f"{what} is neither a folder here nor in the cache ({self.where['cache_dir']}), and {self.endpoint} cannot be "
            f"reached ({first_line(error)}); give a folder, or set HF_ENDPOINT to a mirror"
        )


def same_host(url: str, other: str) -> bool:
    """Whether two addresses are of one host, asked the same way.

    >>> same_host("https://huggingface.co/org/name", "https://huggingface.co")
    True
    >>> same_host("https://huggingface.co.evil/org/name", "https://huggingface.co")
    False
    """
    return urlsplit(url)[:2] == urlsplit(other)[:2]


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline_by() -> str | None:
    """The variable that forbids the network, or None."""
    return next((key for key in OFFLINE if os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE")), None)


def first_line(error: BaseException) -> str:
    """The innermost reason of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
