"""Published families: each file says which parts a config means and where every weight lives."""

FAMILIES = {
    "llama": "chainrule.models.families.llama",
    "t5": "chainrule.models.families.t5",
}
"""``model_type`` of a published config.json → the module that understands it."""
