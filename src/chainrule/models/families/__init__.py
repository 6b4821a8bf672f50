"""Published families: each file says which parts a config means and where every weight lives."""

FAMILIES = {"llama": "chainrule.models.families.llama"}
"""``model_type`` of a published config.json → the module that understands it."""
