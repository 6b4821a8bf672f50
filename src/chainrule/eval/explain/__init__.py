"""How a name becomes a model that answers, told as it happens: ``chainrule explain MODEL``.

model.explain(name)      everything as data: an ``Explanation`` (``facts``)
loading, tensors         the load: its stages, seconds, memory, and each tensor's way
parts, tree              what the config means, and the modules it became
prompts, forward, work   one forward pass, as the tap hears it, with FLOPs
rows, text, page         the same in few rows, for a terminal and as a page
theirs, calls            what transformers does for the same folder, stage by stage
"""
