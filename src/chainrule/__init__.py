"""chainrule: p(x) = ∏ p(x_t | x_<t), from the bigram table to a chatting model.

    import chainrule as cr
    lm = cr.load("runs/quickstart")
    lm.score("今天我来到了仙II-212。")

This is the face; every name is resolved when it is first used, so that importing it costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chainrule.core.version import __version__ as __version__

if TYPE_CHECKING:  # what is resolved lazily, for those who read types
    from chainrule import tokenizers as tokenizers
    from chainrule import world as world
    from chainrule.core.datum import Batch as Batch
    from chainrule.core.datum import Layout as Layout
    from chainrule.core.errors import ChainruleError as ChainruleError
    from chainrule.core.model import LanguageModel as LanguageModel
    from chainrule.generate.engine import Engine as Engine
    from chainrule.generate.engine import Request as Request
    from chainrule.hub.encoder import MaskedLM as MaskedLM
    from chainrule.hub.lm import LM as LM
    from chainrule.hub.load import load as load
    from chainrule.logprobs.scoring import token_logprobs as token_logprobs


_FACE = {
    "load": ("chainrule.hub.load", "load"),
    "LM": ("chainrule.hub.lm", "LM"),
    "MaskedLM": ("chainrule.hub.encoder", "MaskedLM"),
    "tokenizers": ("chainrule.tokenizers", None),
    "world": ("chainrule.world", None),
    "LanguageModel": ("chainrule.core.model", "LanguageModel"),
    "Batch": ("chainrule.core.datum", "Batch"),
    "Layout": ("chainrule.core.datum", "Layout"),
    "token_logprobs": ("chainrule.logprobs.scoring", "token_logprobs"),
    "Engine": ("chainrule.generate.engine", "Engine"),
    "Request": ("chainrule.generate.engine", "Request"),
    "ChainruleError": ("chainrule.core.errors", "ChainruleError"),
}
__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"chainrule has no {name!r}; it has {', '.join(_FACE)}")
    module, attribute = _FACE[name]
    loaded = import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
