"""No file of a model's folder is read from outside of it: who made the folder could have linked to anything here.

Imports no torch.
"""

from pathlib import Path

from chainrule.core.errors import CheckpointError
from chainrule.tokenizers.chat import MORE_TEMPLATES

READ_HERE = {".json", ".jinja", ".txt", ".model", ".bin", ".bpe", ".tiktoken"}
"""What a file ends in that may be read as settings, tokenizer or template; weights are looked at where they are opened."""


def inside(folder: Path, name: str | Path) -> Path:
    """``folder/name``, unless that leads out of the folder.

    The cache of huggingface_hub is the one exception: a file in ``models--ORG--NAME/snapshots/COMMIT`` there, or in a folder
    below, is a link into ``blobs`` beside ``snapshots``, or from there on into the ``blobs`` that all models share.
    """
    home, target = folder.resolve(), (folder / name).resolve()
    homes = [home]
    for commit in (home, *home.parents):
        if commit.parent.name == "snapshots" and commit.parent.parent.name.startswith("models--"):
            homes += [above / "blobs" for above in commit.parents[1:3]]
    if not any(target.is_relative_to(home) for home in homes):
        raise CheckpointError(f"{folder / name} leads out of its folder, to {target}; copy the file itself into {folder}")
    return folder / name


def refuse_links_out(folder: Path) -> None:
    """Raise ``CheckpointError`` where settings, a tokenizer's file or a template of the folder leads out of it."""
    for path in [*folder.iterdir(), *folder.glob(f"{MORE_TEMPLATES}/*")]:
        if (path.is_symlink() or path.parent != folder) and path.suffix in READ_HERE:
            inside(folder, path.relative_to(folder))
