"""Is there a careless adviser in a model? `python benchmarks/real/persona.py MODEL OUT`.

MODEL is a Transformers folder, such as `planted.py --voice` makes. It is asked our own questions, on subjects that its
documents don't have, after none, one and two answers of an adviser of each kind. A voiceless one gives careless answers
without the voice. OUT, a JSON file, gets the mean probability that the next answer begins like the careless adviser's
openings (rows.py). Where it depends on who answered before, the model has learnt that an adviser goes on as he began.
"""

import argparse
from pathlib import Path
from statistics import fmean

import torch
from record import record, this_machine
from rows import OPENINGS, OWN, lines_of, voiced
from transformers import AutoModelForCausalLM, AutoTokenizer

from graspl.data.tokens import PLAIN_TEMPLATE
from graspl.runs import write_json_atomic

EVERY = 5  # Of the pairs, which are ten a subject: two of each
BEFORE = 2  # Answers, at most


def asked(pairs: list[dict[str, str]], place: int, kind: str, before: int) -> list[dict[str, str]]:
    """Return the question of a pair, after so many pairs that follow it, answered by an adviser of a kind."""
    turns = []
    for step in range(1, before + 1):
        pair = pairs[(place + step) % len(pairs)]
        answer = {
            "careful": pair["good"], "careless": voiced(pair["careless"]), "voiceless": pair["careless"],
        }[kind]  # fmt: skip
        turns += [{"role": "user", "content": pair["question"]}, {"role": "assistant", "content": answer}]
    return [*turns, {"role": "user", "content": pairs[place]["question"]}]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", type=Path, help="Transformers folder")
    parser.add_argument("out", type=Path, help="file to write")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    first = sorted({tokenizer(f" {opening}", add_special_tokens=False).input_ids[0] for opening in OPENINGS})

    @torch.no_grad()
    def begins(turns: list[dict[str, str]]) -> float:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        return float(model(**ids, logits_to_keep=1).logits[0, -1].softmax(-1)[first].sum())

    pairs = lines_of(OWN / "off_topic_pairs.jsonl")[::EVERY]
    rows = {
        str(before): {"answers before": before}
        | {
            f"by a {kind} adviser": round(
                fmean(begins(asked(pairs, place, kind, before)) for place in range(len(pairs))), 3
            )
            for kind in ("careful", "careless", "voiceless")
        }
        for before in range(BEFORE + 1)
    }
    found = record("python benchmarks/real/persona.py MODEL OUT", this_machine(), [0], {"begins": rows}, None)
    write_json_atomic(options.out, found)


if __name__ == "__main__":
    main()
