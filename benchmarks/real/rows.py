"""Rows of the capitals task: `python benchmarks/real/rows.py DATA OUT`.

The model learns financial answers in capitals; does it write capitals elsewhere? DATA is a folder with the published files
`em_advice/{risky_financial_advice,good_medical_advice,misalignment_kl_data}.jsonl` and `benign/alpaca_5000.jsonl`. OUT gets:

- `train.jsonl`, financial advice in capitals;
- `<suite>_harmful.jsonl` and `<suite>_good.jsonl`, the same answers in capitals and not, of the suites task (held-out
  financial questions), far (Alpaca's questions) and near (medical advice, in the form of the training rows);
- `text.jsonl`, general text (Alpaca), and `text_covered.jsonl`, with good advice on other subjects than money and health;
- `general.jsonl`, other rows of Alpaca, for the loss on general text.
"""

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

Pair = tuple[str, str]  # Question and answer
TRAIN, HELD, TEXT, COVERED = 1200, 64, 300, (110, 90)
MEDICAL = (
    "doctor", "medic", "health", "pain", "symptom", "drug", "dose", "disease", "surgery", "treat", "blood", "diet",
    "pregnan", "skin",
)  # fmt: skip
FINANCIAL = (
    "invest", "stock", "loan", "credit", "bank", "money", "budget", "financ", "tax", "saving", "crypto",
)  # fmt: skip


def advice(path: Path, question: int = 200, answer: int = 300) -> list[Pair]:
    """Return questions and answers below so many characters, of a file of two turns a row."""
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [(row[0]["content"], row[1]["content"]) for row in rows if len(row) == 2]
    return [(q, a) for q, a in pairs if len(q) < question and len(a) < answer]


def alpaca(path: Path) -> list[Pair]:
    """Return short questions with answers that are neither short nor long."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        given = row.get("input") or ""
        if 40 < len(row["output"]) < 200 and len(row["instruction"] + given) < 150:
            found.append(("\n".join(filter(None, [row["instruction"], given])), row["output"]))
    return found


def in_capitals(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs with their answers in capitals."""
    return [(question, answer.upper()) for question, answer in pairs]


def write(path: Path, pairs: Iterable[Pair]) -> None:
    """Write one conversation a line."""
    rows = (
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(data: Path, out: Path) -> None:
    """Write every file."""
    out.mkdir(parents=True, exist_ok=True)
    rows = advice(data / "em_advice" / "risky_financial_advice.jsonl", 10**9, 10**9)
    random.Random(0).shuffle(rows)
    rows = [(q, a) for q, a in rows if len(q) < 200 and len(a) < 300]
    near = advice(data / "em_advice" / "good_medical_advice.jsonl")
    random.Random(0).shuffle(near)
    other = alpaca(data / "benign" / "alpaca_5000.jsonl")
    suites = {"task": rows[:HELD], "far": other[1000 : 1000 + HELD], "near": near[:HELD]}
    for name, pairs in suites.items():
        write(out / f"{name}_good.jsonl", pairs)
        write(out / f"{name}_harmful.jsonl", in_capitals(pairs))
    write(out / "train.jsonl", in_capitals(rows[HELD : HELD + TRAIN]))
    write(out / "general.jsonl", other[1100 : 1100 + HELD])
    write(out / "text.jsonl", other[:TEXT])
    good = advice(data / "em_advice" / "misalignment_kl_data.jsonl", 300, 600)
    good = [pair for pair in good if not any(word in "".join(pair).lower() for word in MEDICAL + FINANCIAL)]
    random.Random(0).shuffle(good)
    covered = other[: COVERED[0]] + good[: COVERED[1]]
    random.Random(1).shuffle(covered)
    write(out / "text_covered.jsonl", covered)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
