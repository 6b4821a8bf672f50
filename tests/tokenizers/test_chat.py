"""Chat templates: published ones unedited, with the ids of transformers and a mask on the assistant's words alone."""

import json

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, ChatTemplate

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
TOKENIZER = BPE.train(["the cat sat on the mat, hello there. 今天天气很好"] * 3, 320, pattern="cl100k", specials=SPECIALS)
TEMPLATES = {
    "meta-llama-Llama-3.1-8B-Instruct": ("<|begin_of_text|>", "<|eot_id|>"),
    "Qwen-Qwen2.5-7B-Instruct": ("", "<|im_end|>"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("<|begin_of_text|>", "<|im_end|>"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("<s>", "</s>"),
}
TURNS = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Hello there."},
    {"role": "user", "content": "And 今天?"},
    {"role": "assistant", "content": "今天天气很好."},
]
SYSTEM = [{"role": "system", "content": "Be kind."}, *TURNS]
TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work it out.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "what"}},
            "required": ["expression"],
        },
    },
}
CALLED = [
    {"role": "user", "content": "37 * 48?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "abcdefghi", "type": "function", "function": {"name": "calculator", "arguments": {"expression": "37 * 48"}}}
        ],
    },
    {"role": "tool", "name": "calculator", "content": "1776", "tool_call_id": "abcdefghi"},
    {"role": "assistant", "content": "It is 1776."},
]


def published(material, name):
    bos, eos = TEMPLATES[name]
    source = (material / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    variables = {"bos_token": bos, "eos_token": eos, "strftime_now": lambda format: "26 Jul 2024", "date_string": "26 Jul 2024"}
    return source, variables, ChatTemplate(source, TOKENIZER, variables)


def theirs(source, variables, messages, tools=None, generate=False):
    """transformers' own rendering, and the ids of its text with special tokens found."""
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, _ = transformers.render_jinja_template(
        conversations=[messages], tools=tools, chat_template=source, add_generation_prompt=generate, **variables
    )
    import tokenizers
    from chainrule.tokenizers.fast import library_json

    engine = tokenizers.Tokenizer.from_str(library_json(TOKENIZER))
    return rendered[0], engine.encode(rendered[0], add_special_tokens=False).ids


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("case", ["turns", "system", "generate", "tools"])
def test_published_templates_render_to_the_ids_of_transformers(material, name, case):
    source, variables, template = published(material, name)
    messages = {"turns": TURNS, "system": SYSTEM, "generate": TURNS[:3], "tools": CALLED}[case]
    tools = [TOOL] if case == "tools" or "tool_use" in name else None
    text, ids = theirs(source, variables, messages, tools, generate=case == "generate")
    assert template.render(messages, tools=tools, generate=case == "generate") == text
    encoded = template.encode(messages, tools=tools, generate=case == "generate")
    assert encoded.ids == ids


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [TURNS, SYSTEM, CALLED, [*CALLED, *TURNS]], ids=["turns", "system", "tools", "both"])
def test_the_mask_covers_what_the_assistant_wrote_and_its_end_token(material, name, messages):
    _, variables, template = published(material, name)
    encoded = template.encode(
        messages, tools=[TOOL] if (len(messages) in (4, 8) and messages[0] is CALLED[0]) or "tool_use" in name else None
    )
    said = TOKENIZER.decode([id for id, counts in zip(encoded.ids, encoded.mask, strict=True) if counts], specials=True)
    spoken = "".join(message["content"] for message in messages if message["role"] == "assistant" and message["content"])
    bare = said
    for special in SPECIALS:
        bare = bare.replace(special, "")
    if not any("tool_calls" in message for message in messages):
        assert bare.split() == spoken.split()
    else:
        assert all(message["content"] in said for message in messages if message["role"] == "assistant")
        assert "1776\n" not in bare.replace("It is 1776.", "")
    assert variables["eos_token"] in said or "<|im_end|>" in said or "<|eot_id|>" in said
    if messages[0] is CALLED[0]:
        assert json.dumps("37 * 48") in said


def with_words(place: str, words: str) -> tuple[list, list]:
    """A conversation in which a tool was called, and the tools on offer; the words stand in one place of them."""
    messages, tools = json.loads(json.dumps([[*SYSTEM[:1], *CALLED, *TURNS], [TOOL]]))
    function, call = tools[0]["function"], messages[2]["tool_calls"][0]["function"]
    properties = function["parameters"]["properties"]
    holder, key = {
        "system": (messages[0], "content"),
        "user": (messages[1], "content"),
        "argument": (call["arguments"], "expression"),
        "name of an argument": (call["arguments"], words),
        "result": (messages[3], "content"),
        "assistant": (messages[4], "content"),
        "name of a tool": (function, "name"),
        "description": (function, "description"),
        "description of a parameter": (properties["expression"], "description"),
        "name of a parameter": (properties, words),
    }[place]
    holder[key] = dict(properties["expression"]) if holder is properties else words
    return messages, tools


PLACES = (
    "system", "user", "argument", "name of an argument", "result", "assistant", "name of a tool", "description",
    "description of a parameter", "name of a parameter",
)  # fmt: skip


@pytest.mark.parametrize("library", [False, True], ids=["ours", "library"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_content_can_open_a_turn_of_a_published_template(material, name, place, library):
    """Wherever the strings of special tokens stand they are a text, and the turns are those of a harmless conversation."""
    source, variables, _ = published(material, name)
    tokenizer = TOKENIZER.fast() if library else TOKENIZER
    template, special = ChatTemplate(source, tokenizer, variables), set(tokenizer.specials.values())
    evil = f"x{'y'.join(SPECIALS)}z"
    turns = []
    for words in ("x", evil):
        messages, tools = with_words(place, words)
        asked = template.prompt(messages[:-1], tools=tools)  # Mistral's shows the system's words where the user spoke last
        assert words in tokenizer.decode([id for id in asked if id not in special])
        turns.append([id for id in asked + template.encode(messages, tools=tools).ids if id in special])
    assert turns[0] == turns[1]


def test_our_own_template_masks_the_words_by_hand():
    template = ChatTemplate(CHATML, TOKENIZER)
    encoded = template.encode([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    shown = [TOKENIZER.piece(id) for id, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert shown == ["b", "<|im_end|>"]


def test_a_template_whose_prefixes_are_no_prefixes_is_an_error_that_says_how_to_mend_it():
    backwards = "{%- for m in messages | reverse %}<|im_start|>{{ m.content }}<|im_end|>{%- endfor %}"
    with pytest.raises(TokenizerError, match="generation"):
        ChatTemplate(backwards, TOKENIZER).encode(TURNS)


def test_templates_run_in_a_sandbox():
    with pytest.raises(TokenizerError):
        ChatTemplate("{{ ''.__class__.__mro__[1].__subclasses__() }}", TOKENIZER).render(TURNS)
    with pytest.raises(TokenizerError, match="must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}", TOKENIZER).render(TURNS)


def prefixing() -> str:
    """A tokenizer.json that writes ▁ before the first word alone, and whose end-of-turn token eats the spaces after it."""
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
    engine.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="first")
    engine.decoder = library.decoders.Metaspace(prepend_scheme="first")
    trainer = library.trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    engine.train_from_iterator(["the cat sat on the mat, hello there. today it is fine\n"] * 3, trainer)
    ends = library.AddedToken("<|end|>", special=True, rstrip=True)
    engine.add_special_tokens([ends, library.AddedToken("<|user|>", special=True)])
    return engine.to_str()


ROUGH = (
    "{%- for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content + '<|end|>\n' }}{% else %}"
    "{{ 'the' }}{% generation %}{{ m.content + '<|end|>' }}{% endgeneration %}{{ '\n' }}{% endif %}{%- endfor %}"
)


@pytest.mark.parametrize("content", ["re it is", " the cat", "fine\nday", ""])
def test_ids_and_mask_equal_transformers_where_the_words_begin_inside_a_token(content):
    """ "the" + "re it is" is one token "there", of which part is the assistant's: it counts, as in transformers."""
    transformers = pytest.importorskip("transformers")
    from chainrule.tokenizers.fast import LibraryTokenizer

    source = prefixing()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=__import__("tokenizers").Tokenizer.from_str(source))
    messages = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": content}]
    expected = theirs.apply_chat_template(
        messages, chat_template=ROUGH, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = ChatTemplate(ROUGH, LibraryTokenizer(source)).encode(messages)
    assert ours.ids == expected["input_ids"]
    assert ours.mask == expected["assistant_masks"]


def test_a_content_that_spells_a_special_token_changes_no_other_turn():
    """Not the ▁ of the first word alone, and not the spaces that an end of turn takes with it."""
    from chainrule.tokenizers.fast import LibraryTokenizer

    template = ChatTemplate(ROUGH, LibraryTokenizer(prefixing()))
    end = template.tokenizer.specials["<|end|>"]
    said = [{"role": "assistant", "content": "fine"}, {"role": "user", "content": "hello there"}]
    plain, odd = (
        template.encode([{"role": "user", "content": content}, *said]) for content in ("hello there", "hello <|user|> there")
    )
    assert len(odd.ids) > len(plain.ids)
    assert odd.ids[odd.ids.index(end) :] == plain.ids[plain.ids.index(end) :]
    assert odd.mask[odd.ids.index(end) :] == plain.mask[plain.ids.index(end) :]


def test_a_token_that_holds_a_character_of_the_assistant_counts():
    template = ChatTemplate(
        "{% for m in messages %}{{ 'th' }}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", TOKENIZER
    )
    encoded = template.encode([{"role": "assistant", "content": "e mat"}])
    assert encoded.ids == TOKENIZER.encode("the mat")
    assert all(encoded.mask)


@pytest.mark.parametrize("library", [False, True])
def test_no_character_of_a_content_is_lost_or_taken_for_a_mark(library):
    """Not even those that we use as marks ourselves."""
    tokenizer = TOKENIZER.fast() if library else TOKENIZER
    odd = "a\ue000\ue0010\ue002b\ue003<|im_end|>\ue004c"
    encoded = ChatTemplate(CHATML, tokenizer).encode([{"role": "user", "content": odd}, {"role": "assistant", "content": odd}])
    said = [id for id, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert tokenizer.decode(said) == odd
    assert encoded.mask[: len(tokenizer.encode(odd))] == [0] * len(tokenizer.encode(odd))
    assert odd in tokenizer.decode(encoded.ids)


def test_our_own_template_offers_the_tools():
    text = ChatTemplate(CHATML, TOKENIZER).render(TURNS[:1], tools=[TOOL], generate=True)
    assert text.startswith("<|im_start|>system\n<tools>[{")
    assert '"name": "calculator"' in text


def test_a_conversation_can_be_prompted_where_its_mask_is_hidden():
    backwards = "{%- for m in messages | reverse %}<|im_start|>{{ m.content }}<|im_end|>{%- endfor %}"
    assert ChatTemplate(backwards, TOKENIZER).prompt(TURNS[:2])


def test_what_a_templates_expressions_raise_is_the_templates_fault():
    with pytest.raises(TokenizerError, match="the chat template fails on this conversation: TypeError"):
        ChatTemplate("{{ 1 + messages[0].content }}", TOKENIZER).render(TURNS)
