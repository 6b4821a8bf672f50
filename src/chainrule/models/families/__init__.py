"""Published families: each file says which parts a config means and where every weight lives."""

FAMILIES = {
    "bert": "chainrule.models.families.bert",
    "gpt2": "chainrule.models.families.gpt2",
    "llama": "chainrule.models.families.llama",
    "mistral": "chainrule.models.families.mistral",
    "mixtral": "chainrule.models.families.mixtral",
    "qwen2": "chainrule.models.families.qwen2",
    "qwen3": "chainrule.models.families.qwen3",
    "qwen3_moe": "chainrule.models.families.qwen3_moe",
    "gemma2": "chainrule.models.families.gemma2",
    "gemma3_text": "chainrule.models.families.gemma3",
    "deepseek_v2": "chainrule.models.families.deepseek",
    "deepseek_v3": "chainrule.models.families.deepseek",
    "kimi_k2": "chainrule.models.families.deepseek",
    "glm4": "chainrule.models.families.glm4",
    "glm4_moe": "chainrule.models.families.glm4_moe",
    "ernie4_5": "chainrule.models.families.ernie",
    "ernie4_5_moe": "chainrule.models.families.ernie_moe",
    "minimax_m2": "chainrule.models.families.minimax_m2",
    "llama4_text": "chainrule.models.families.llama4",
    "phi3": "chainrule.models.families.phi3",
    "olmo2": "chainrule.models.families.olmo2",
    "smollm3": "chainrule.models.families.smollm3",
    "gpt_oss": "chainrule.models.families.gpt_oss",
    "t5": "chainrule.models.families.t5",
}
"""``model_type`` of a published config.json → the module that understands it."""
