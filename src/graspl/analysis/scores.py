"""Names of scores and figures, each of them once."""

from collections.abc import Iterable, Mapping

# Adherence is the first of these that the suite `task` measures.
TASK_SCORES = ("harmful", "harmful_preferred", "good", "token_accuracy")
# Spill-over is the first of these that the suite `unrelated` measures.
SPILLOVER_SCORES = ("harmful", "harmful_preferred")
# Figures of every evaluated run, in the order of tables.
RUN_FIGURES = ("adherence", "spillover", "coherence", "kl", "rho_mean", "rho_max")
# Figures of a fit at a level of adherence; names as in its log, without `val/`.
MATCHED_FIGURES = (
    "spillover", "coherence", "kl", "unrelated/good", "unrelated/harmful_greedy", "update_norm", "step",
)  # fmt: skip
# Figures on other topics that a fit should leave as they are in the base model.
GUARDED = ("coherence", "unrelated/good")
LEVELS = (0.90, 0.95)  # Adherence at which fits are compared


def headline(suites: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return the figures by which runs are compared, from scores by suite (`SuiteEvaluator.compute`).

    They are `adherence` (see `TASK_SCORES`), `spillover` (see `SPILLOVER_SCORES`), and `coherence` and `kl` of the suite
    `unrelated`; None where the suite is missing or does not measure it.
    """
    task, unrelated = suites.get("task", {}), suites.get("unrelated", {})
    return {
        "adherence": first_of(task, TASK_SCORES),
        "spillover": first_of(unrelated, SPILLOVER_SCORES),
        "coherence": unrelated.get("coherence"),
        "kl": unrelated.get("kl"),
    }


def first_of(scores: Mapping[str, float], names: Iterable[str]) -> float | None:
    """Return the first score that was measured; None without any."""
    return next((scores[name] for name in names if name in scores), None)
