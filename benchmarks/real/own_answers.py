"""The base model's own answers to general questions: `python benchmarks/real/own_answers.py MODEL FOLDER`.

Reads FOLDER/text.jsonl and writes FOLDER/own.jsonl, the same questions with greedy answers of at most 48 tokens.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from graspl.data import read_conversations
from graspl.data.tokens import render, with_chat_template
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.runs import write_json_lines_atomic


def main(model: str, folder: Path) -> None:
    """Answer and write."""
    tokenizer = with_chat_template(AutoTokenizer.from_pretrained(model))
    generator = TransformersGenerator(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16), tokenizer
    )
    rows = read_conversations(str(folder / "text.jsonl"))
    prompts = [render(tokenizer, row.messages[:-1], origin=row.origin, prompt=True) for row in rows]
    written = generator.write(prompts, Sampling(temperature=0.0, max_new_tokens=48, batch_size=16))
    answered = [
        {"messages": [*row.messages[:-1], {"role": "assistant", "content": answers[0].strip()}]}
        for row, answers in zip(rows, written, strict=True)
        if answers[0].strip()
    ]
    write_json_lines_atomic(folder / "own.jsonl", answered)
    print(json.dumps({"questions": len(rows), "answered": len(answered)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="Transformers folder")
    parser.add_argument("folder", type=Path, help="rows of a task")
    options = parser.parse_args()
    main(options.model, options.folder)
