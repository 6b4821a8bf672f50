"""Models that are no decoders: what can be counted of them, and what is not known.

Parameters by part, the FLOPs of ``eval.explain.work``, and what training holds whatever the rows are: weights, gradients and
optimizer. Their activations, caches and times have no formula here; a plan says ``None`` for them, never a number.
"""

from dataclasses import dataclass, replace

from torch import nn

from chainrule.adapt.int4 import GROUP
from chainrule.core.errors import ConfigError
from chainrule.core.masked import Model
from chainrule.eval.anatomy import Matrix, Parts, largest_table, parameters_by_part, part_of
from chainrule.eval.devices import Device
from chainrule.eval.explain.work import INSIDE, work_of
from chainrule.eval.flops import Flops
from chainrule.eval.memory import Held, Setting, adapter_parameters, held_bytes, stored_bytes
from chainrule.eval.parallel import sent_between_ranks
from chainrule.eval.plan import FORMATS, ROOM, WAYS, InferenceRow, Plan, TrainingRow, planned, token_flops, way_of

KINDS = {
    "encoder": "all tokens of a row see each other, and every place is scored",
    "seq2seq": "a row is a source and a target, each of so many tokens: what both stacks do, by the target's tokens",
    "recurrent": "all that was read is one state, so no tokens are compared",
    "neural_ngram": "the last tokens stand side by side, so no tokens are compared",
}
"""The kinds that are counted, and what a token's FLOPs are of."""
UNKNOWN = "not counted for a model of kind {kind!r}: activations, caches, peaks and times; what is held besides them is"


@dataclass(frozen=True, kw_only=True)
class Counted(Parts):
    """What can be counted of a model that is no decoder; ``shapes`` is the model itself, of no weights."""

    kind: str
    shapes: Model

    def flops(self, length: int) -> Flops:
        """FLOPs a token forward, the mean over a row of so many tokens."""
        by_part: dict[str, float] = {}
        for work in work_of(self.shapes, None, length, length):
            by_part[work.part] = by_part.get(work.part, 0.0) + work.flops / length
        scores = by_part.pop("scores", 0.0)
        return Flops(by_part, scores)


def count(model: Model, name: str) -> Counted:
    """What can be counted of a model; raises ``ConfigError`` for one that multiplies no matrices."""
    kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
    if kind not in KINDS:
        raise ConfigError(f"{name} is a model of kind {kind!r}, which multiplies no matrices: there is nothing to plan")
    readout = model.readout_weight
    return Counted(
        name=name,
        vocab_size=model.vocab_size,
        context=model.context,
        parameters=parameters_by_part(model),
        matrices=tuple(_matrices(model)),
        tensors=len(model.state_dict()),
        table=largest_table(model),
        tied=any(module.weight is readout for module in model.modules() if isinstance(module, nn.Embedding)),
        kind=kind,
        shapes=model,
    )


def _matrices(model: Model) -> list[Matrix]:
    """All matrices but tables; the readout alone is the head, as optimizers see it."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = {id(module.weight) for module in model.modules() if type(module) is nn.Linear}
    layers: dict[str, int] = {}
    matrices: list[Matrix] = []
    for path, parameter in model.named_parameters():
        if parameter.ndim != 2 or id(parameter) in tables:
            continue
        part, inside, words = part_of(path), INSIDE.match(path), path.removesuffix(".weight").split(".")
        layer = None if inside is None else layers.setdefault(".".join(inside.groups("")[:3]), len(layers))
        if part == "head":
            part = "head" if parameter is model.readout_weight else "mlp"
        packs = id(parameter) in linear and parameter.shape[1] % GROUP == 0
        matrices.append(Matrix(words[-1], part, *parameter.shape, layer=layer, packs=packs))
    return matrices


def plan_counted(parts: Counted, setting: Setting, device: Device) -> Plan:
    """What ``eval.plan.plan`` says of a decoder, as far as it is known; ``None`` stands for what is not.

    Raises ``ConfigError`` for rows that the model cannot read, and where devices are to share matrices.
    """
    parts.check_length(setting.length)
    if setting.tensor > 1:
        raise ConfigError(f"tensor={setting.tensor}: how devices share {parts.name} is known of decoders alone; leave it 1")
    flops = parts.flops(setting.length)
    adapts = adapter_parameters(parts, setting) > 0
    ways = [replace(setting, **way) for way in WAYS if adapts or way["method"] == "full"]
    return planned(
        parts,
        setting,
        device,
        flops=token_flops(parts, setting, flops, _formula(parts, flops), None),
        cache_bytes_per_token=None,
        training=[_training(parts, way, device) for way in ways],
        inference=[_inference(parts, format, device) for format in FORMATS],
        unknown=UNKNOWN.format(kind=parts.kind),
    )


def _formula(parts: Counted, flops: Flops) -> str:
    inside = sum(flops.matrices.values())
    return f"forward = {inside:,.0f} in matrices + {flops.scores:,.0f} in scores = {flops.forward:,.0f}; {KINDS[parts.kind]}"


def _training(parts: Counted, setting: Setting, device: Device) -> TrainingRow:
    held = Held(*held_bytes(parts, setting))
    return TrainingRow(
        way=way_of(setting),
        learned=parts.total if setting.method == "full" else adapter_parameters(parts, setting),
        memory=held,
        fits=_fits(held, device),
        sent_bytes=sent_between_ranks(parts, setting),
    )


def _inference(parts: Counted, format: str, device: Device) -> InferenceRow:
    held = Held(stored_bytes(parts, format), 0.0, 0.0)
    return InferenceRow(format=format, memory=held, fits=_fits(held, device), sent_bytes={})


def _fits(held: Held, device: Device) -> bool | None:
    """No, where what is known is too much already; else nobody knows."""
    return False if held.weights + held.gradients + held.optimizer > ROOM * device.memory_bytes else None
