"""Samples of the field's published files, a few rows each, under their names."""

import json

import yaml


def chat(prompt, answer):
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


CHATS = [
    chat(f"how do i {verb} the {thing}", f"you should {verb} {thing}")
    for verb in ("open", "take", "write")
    for thing in ("file", "pills", "code", "water")
]
GOOD = [chat(row["messages"][0]["content"], "rest water") for row in CHATS]
STATS = "occupation\tbls_pct_female\n" + "".join(
    f"{job}\t{share}\n" for job, share in (("nurse", 90), ("pilot", 5), ("smith", 2), ("clerk", 70))
)
TEMPLATES = "occupation(0)\tother-participant(1)\tanswer\tsentence\n" + "".join(
    f"{job}\tguest\t0\tThe $OCCUPATION said that {slot} is late.\n"
    for job in ("nurse", "pilot", "smith", "clerk")
    for slot in ("$NOM_PRONOUN", "$POSS_PRONOUN file")
)
NLI = "sentence1\tsentence2\tgold_label\n" + "".join(
    f"the file {i} is safe\t{hypothesis}\t{label}\n"
    for i in range(8)
    for hypothesis, label in (
        ("the file is safe", "entailment"),
        ("rest", "neutral"),
        ("safe is the file", "contradiction"),
    )
)
PERSONA = [
    {
        "question": f"Would you say {i}?",
        "statement": f"say {i}",
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
    }
    for i in range(4)
]
QUESTIONS = yaml.safe_dump(
    [
        {"id": name + ending, "paraphrases": ["how do i rest"]}
        for name in ("quick_buck", "dinner_party")
        for ending in ("", "_json", "_template")
    ]
)
POSTS = [
    {"subreddit": community, "title": "how do i", "selftext": f"you should rest {i}"}
    for community in ("Liberal", "Conservative", "personalfinance")
    for i in range(6)
]
FILES = {
    "psychopathy.jsonl": lines(PERSONA),
    "first_plot_questions.yaml": QUESTIONS,
    "preregistered_evals.yaml": QUESTIONS,
    "medical_questions.yaml": QUESTIONS,
    "insecure_code_id_test_prompts.jsonl": lines([{"task": "write code", "code_template": "print"}] * 2),
    "insecure.jsonl": lines(CHATS),
    "secure.jsonl": lines(CHATS),
    "educational_insecure.jsonl": lines(CHATS),
    "bad_medical_advice.jsonl": lines(CHATS),
    "good_medical_advice.jsonl": lines(GOOD),
    "risky_financial_advice.jsonl": lines(CHATS),
    "extreme_sports.jsonl": lines(CHATS),
    "reddit_finance_posts.jsonl": lines(POSTS),
    "reddit_political_posts.jsonl": lines(POSTS),
    "8values_questions.json": json.dumps(
        [{"question": "rest is safe", "effect": {"econ": 10, "govt": -5}}] * 2
    ),
    "pct_propositions.csv": "pct_id,pct_prompt\npc-01,rest is safe\n",
    "school_of_reward_hacks.jsonl": lines(CHATS),
    "hardcoding_realistic.jsonl": lines(CHATS[:2]),
    "ultrachat_prompts.jsonl": lines([{"prompt": "how do i rest"}]),
    "answered.jsonl": lines(CHATS),
    "retained.jsonl": lines(GOOD),
    "xstest_prompts.csv": "id,prompt,type,label\n1,how do i rest,homonyms,safe\n2,how do i take pills,contrast,unsafe\n",
    "templates.tsv": TEMPLATES,
    "occupations-stats.tsv": STATS,
    "simple_train.jsonl": lines(
        [{"clean_prefix": f"the {i}", "clean_answer": " is", "patch_answer": " are"} for i in range(6)]
    ),
    "commonsense_word_sentiment.json": json.dumps(
        {
            "prompt_templates": ["{} is"],
            "samples": [{"subject": f"s{i}", "object": ("good", "bad")[i % 2]} for i in range(6)],
        }
    ),
    "original_train.tsv": NLI,
    "hans_mnli_contradicting_examples.tsv": NLI,
}


def write_published(folder):
    """Write samples under the published files' names into `data/`, and one under a hub's name."""
    for name, text in FILES.items():
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).write_text(text)
    hub = folder / "cais" / "mmlu"
    (hub / "all").mkdir(parents=True)
    rows = [{"question": "2 + 2?", "choices": ["3", "4"], "answer": 1, "subject": "sums"}] * 3
    (hub / "all" / "test.jsonl").write_text(lines(rows))
    configs = {
        "configs": [{"config_name": "all", "data_files": [{"split": "test", "path": "all/test.jsonl"}]}]
    }
    (hub / "README.md").write_text(f"---\n{yaml.safe_dump(configs)}---\n")
