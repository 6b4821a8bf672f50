"""The bricks of a Transformer, which know no model: norms, rotary positions, attention, mlps and the key/value cache.

Each kind of brick is a small frozen dataclass, a *part*, that holds its numbers and builds its layer. A different
behaviour is a different part; replacing a part (or giving one whose ``build`` returns another module) is how a model
is changed.
"""
