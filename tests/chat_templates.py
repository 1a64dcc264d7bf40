"""Chat templates in the manner of published families, in our own words, and what ends an answer in each of them."""

from typing import NamedTuple

from conftest import make_byte_tokenizer
from tokenizers.processors import TemplateProcessing

from graspl.data.tokens import with_chat_template

EOS, BOS = "<end>", "<begin>"
EACH, ENDED = "{% for m in messages %}", "{% endfor %}"
IS_USER, IS_ANSWER = "{% if m.role == 'user' %}", "{% if m.role == 'assistant' %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn, please') }}{% endif %}"


class Family(NamedTuple):
    """One chat template."""

    template: str | None
    marks: tuple[str, ...] = ()  # Tokens of its own
    end: str = EOS  # What ends an answer
    system: bool = True  # Whether it takes a system turn
    several: bool = True  # Whether earlier answers stay as they are


def opening(text: str) -> str:
    """Return the part of a template that opens the assistant's turn."""
    return "{% if add_generation_prompt %}" + text + "{% endif %}"


def marked(
    before: str, after: str, behind: str, *, role: str = "{{ m.role }}", first: str = "", opens: str = ""
) -> str:
    """Return a template in which every turn stands between marks."""
    opens = opens or before + "assistant" + after
    return first + EACH + before + role + after + "{{ m.content }}" + behind + ENDED + opening(opens)


def without_system(before: dict[str, str], behind: dict[str, str], opens: str, first: str = "") -> str:
    """Return a template of two roles, whose system text stands before the first question."""
    return (
        first
        + "{% if messages[0].role == 'system' %}{% set said = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}"
        + "{% else %}{% set said = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
        + IS_USER + before["user"] + "{% if loop.first %}{{ said }}{% endif %}{{ m.content }}" + behind["user"]
        + "{% else %}" + before["assistant"] + "{{ m.content }}" + behind["assistant"] + "{% endif %}"
        + ENDED + opening(opens)
    )  # fmt: skip


CHATML = marked("<|im_start|>", "\n", "<|im_end|>\n")
IM = ("<|im_start|>", "<|im_end|>")
DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou answer well.<|im_end|>\n{% endif %}"
THOUGHT = "<think>\n\n</think>\n\n"
TOOLS = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}" + EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>"
    "{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n" + ENDED + opening("<|im_start|>assistant\n")
)  # fmt: skip
HEADS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
DATED = (
    "{% if messages[0].role != 'system' %}<|start_header_id|>system<|end_header_id|>\n\n"
    "Today: {{ strftime_now('%Y') }}<|eot_id|>{% endif %}"
)
WIDE = ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>")
COMMAND = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
)

FAMILIES = {
    # ChatML and its relatives
    "chatml": Family(CHATML, IM, "<|im_end|>"),
    "chatml_with_bos": Family("{{ bos_token }}" + CHATML, IM, "<|im_end|>"),
    "default_system": Family(DEFAULT + CHATML, IM, "<|im_end|>"),
    "empty_thought": Family(
        EACH + "<|im_start|>{{ m.role }}\n" + "{% if m.role == 'assistant' and loop.last %}" + THOUGHT + "{% endif %}"
        "{{ m.content }}<|im_end|>\n" + ENDED + opening("<|im_start|>assistant\n"), (*IM, "<think>", "</think>"),
        "<|im_end|>", several=False,
    ),
    "opened_thought": Family(
        EACH + "<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n" + ENDED
        + opening("<|im_start|>assistant\n<think>\n"), (*IM, "<think>", "</think>"), "<|im_end|>", several=False,
    ),
    "tools": Family(TOOLS, (*IM, "<tool_call>", "</tool_call>"), "<|im_end|>"),
    "separated": Family(marked("<|im_start|>", "<|im_sep|>", "<|im_end|>"), (*IM, "<|im_sep|>"), "<|im_end|>"),
    "middle": Family(
        marked("<|im_user|>", "<|im_middle|>", "<|im_end|>"), ("<|im_user|>", "<|im_middle|>", "<|im_end|>"), "<|im_end|>",
    ),
    # Headers around the role
    "headers": Family(
        marked("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", first="{{ bos_token }}"), HEADS, "<|eot_id|>",
    ),
    "dated_system": Family(
        marked("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", first=DATED), HEADS, "<|eot_id|>",
    ),
    "short_headers": Family(
        marked("<|h|>", "<|/h|>\n\n", "<|eot|>"), ("<|h|>", "<|/h|>", "<|eot|>"), "<|eot|>",
    ),
    "roles_and_end_of_text": Family(
        marked("<|start_of_role|>", "<|end_of_role|>", EOS + "\n"), ("<|start_of_role|>", "<|end_of_role|>"),
    ),
    "extra_ids": Family(marked("<extra_0>", "\n", "<extra_1>\n"), ("<extra_0>", "<extra_1>"), "<extra_1>"),
    "channels": Family(
        EACH + "<|start|>{{ m.role }}" + IS_ANSWER + "<|channel|>final{% endif %}<|message|>{{ m.content }}"
        + IS_ANSWER + "<|return|>{% else %}<|next|>{% endif %}" + ENDED
        + opening("<|start|>assistant<|channel|>final<|message|>"),
        ("<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|next|>"), "<|return|>",
    ),
    # A mark for each role
    "role_marks": Family(
        marked("<|", "|>\n", "<|end|>\n"), ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|end|>",
    ),
    "role_marks_and_eos": Family(
        marked("<|", "|>\n", EOS + "\n"), ("<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "role_marks_eos_after_answers": Family(
        EACH + "<|{{ m.role }}|>\n{{ m.content }}" + IS_ANSWER + EOS + "{% endif %}\n" + ENDED + opening("<|assistant|>\n"),
        ("<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "next_role_ends": Family(
        "[gMASK]<sop>" + marked("<|", "|>\n", ""), ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"),
        "<|user|>",
    ),
    "next_role_ends_behind_a_line": Family(
        marked("<|", "|>\n", "\n"), ("<|user|>", "<|assistant|>", "<|system|>"), "<|user|>",
    ),
    "square_marks": Family(
        marked("[|", "|]", "[|endofturn|]\n"), ("[|user|]", "[|assistant|]", "[|system|]", "[|endofturn|]"), "[|endofturn|]",
    ),
    "start_of_turn": Family(
        NO_SYSTEM + "{{ bos_token }}" + EACH + "<start_of_turn>" + IS_ANSWER + "model{% else %}user{% endif %}"
        "{{ '\n' + m.content | trim }}<end_of_turn>\n" + ENDED + opening("<start_of_turn>model\n"),
        ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", system=False,
    ),
    "system_in_the_question": Family(
        without_system(
            {"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
            dict.fromkeys(("user", "assistant"), "<end_of_turn>\n"), "<start_of_turn>model\n", "{{ bos_token }}",
        ), ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>",
    ),
    "turn_tokens": Family(
        "{{ bos_token }}" + EACH + "<|START_OF_TURN_TOKEN|>" + IS_USER + "<|USER_TOKEN|>{% elif m.role == 'system' %}"
        "<|SYSTEM_TOKEN|>{% else %}<|CHATBOT_TOKEN|>{% endif %}{{ m.content }}<|END_OF_TURN_TOKEN|>" + ENDED
        + opening("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"), COMMAND, "<|END_OF_TURN_TOKEN|>",
    ),
    # Instructions in brackets
    "brackets": Family(
        without_system(
            {"user": "[INST] ", "assistant": " "}, {"user": " [/INST]", "assistant": EOS}, "", "{{ bos_token }}"
        ), ("[INST]", "[/INST]"),
    ),
    "system_in_brackets": Family(
        EACH + "{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]{% elif m.role == 'user' %}"
        "[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}" + EOS + "{% endif %}" + ENDED,
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    "bos_before_each_question": Family(
        without_system(
            {"user": BOS + "[INST] ", "assistant": " "}, {"user": " [/INST]", "assistant": " " + EOS}, ""
        ), (),
    ),
    # Words alone
    "words": Family(
        without_system({"user": "USER: ", "assistant": "ASSISTANT: "}, {"user": " ", "assistant": EOS}, "ASSISTANT:"),
    ),
    "sections": Family(
        without_system(
            {"user": "### Instruction:\n", "assistant": "### Response:\n"}, {"user": "\n\n", "assistant": EOS + "\n\n"},
            "### Response:\n",
        ),
    ),
    "paragraphs": Family(
        without_system({"user": "User: ", "assistant": "Assistant: "}, {"user": "\n\n", "assistant": EOS}, "Assistant:"),
    ),
    "correct_user": Family(
        without_system(
            {"user": "Correct User: ", "assistant": "Correct Assistant: "},
            dict.fromkeys(("user", "assistant"), "<|end_of_turn|>"), "Correct Assistant:",
        ), ("<|end_of_turn|>",), "<|end_of_turn|>",
    ),
    "no_end_token": Family(
        without_system({"user": "Q: ", "assistant": "A: "}, {"user": "\n", "assistant": "\n"}, "A:"),
    ),
    "wide_marks": Family(
        without_system({"user": WIDE[0], "assistant": WIDE[1]}, {"user": "", "assistant": EOS}, WIDE[1], "{{ bos_token }}"),
        WIDE,
    ),
    "none": Family(None),
}  # fmt: skip


def tokenizer_of(kind):
    """Return a tokenizer with a family's tokens and template; like many, it puts a BOS before what it encodes itself."""
    family, tokenizer = FAMILIES[kind], make_byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": BOS, "additional_special_tokens": list(family.marks)})
    before = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = before
    tokenizer.chat_template = family.template
    return with_chat_template(tokenizer)
