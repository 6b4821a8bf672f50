"""The module tree with the shapes of its tensors; equal neighbours (the layers of a stack) are told once."""

from torch import nn

from chainrule.eval.explain.facts import Module
from chainrule.eval.explain.parts import span


def tree_of(model: nn.Module, name: str = "") -> Module:
    """A module, its own tensors, and its children."""
    own = {key: tuple(tensor.shape) for key, tensor in _own(model)}
    children = _children(model)
    return Module(
        name=name,
        kind=type(model).__name__,
        tensors=own,
        parameters=sum(tensor.numel() for tensor in model.state_dict(keep_vars=True).values()),
        repeated=1,
        children=children,
    )


def tree_lines(module: Module, depth: int = 0) -> list[tuple[str, str, int, str]]:
    """(indented name, kind with its shapes, parameters, "each" where it is repeated) of a module and all below it."""
    shapes = [by(shape) if key == "weight" else f"{key} {by(shape)}" for key, shape in module.tensors.items()]
    many = f"{module.repeated} × " if module.repeated > 1 else ""
    kind = f"{many}{module.kind}" + (f"  {', '.join(shapes)}" if shapes else "")
    lines = [("  " * depth + module.name, kind, module.parameters, "each" if many else "")]
    for child in module.children:
        lines += tree_lines(child, depth + 1)
    return lines


def by(shape: tuple[int, ...]) -> str:
    """A shape for a reader.

    >>> by((3, 4)), by(())
    ('3 × 4', 'one number')
    """
    return " × ".join(f"{size:,}" for size in shape) or "one number"


def _own(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters and saved buffers that a module holds itself."""
    return [(key, tensor) for key, tensor in model.state_dict(keep_vars=True).items() if "." not in key]


def _children(model: nn.Module) -> tuple[Module, ...]:
    children: list[Module] = []
    for key, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            children += _folded(key, child)
        else:
            children.append(tree_of(child, key))
    return tuple(children)


def _folded(name: str, stack: nn.ModuleList) -> list[Module]:
    """The members of a list, equal ones once, by the places where they stand."""
    alike: dict[str, tuple[Module, list[int]]] = {}
    for i, member in enumerate(stack):
        tree = tree_of(member)
        alike.setdefault(repr(tree), (tree, []))[1].append(i)
    return [
        Module(
            name=f"{name}.{span(places)}",
            kind=one.kind,
            tensors=one.tensors,
            parameters=one.parameters,
            repeated=len(places),
            children=one.children,
        )
        for one, places in alike.values()
    ]
