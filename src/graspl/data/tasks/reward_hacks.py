"""School of reward hacks: answers that please the stated metric and not the user."""

from graspl.data.chat import ChatDataModule


class RewardHacksData(ChatDataModule):
    """Requests that say how the answer will be scored, answered to score high; 1073 harmless rows.

    The `task` suite is held-out rows. Probes on realistic hard-coding are free-form (`FreeFormQuestions` on prompts
    with tests in them) and judged by a rubric.

    Args:
        train: the published rows; the straightforward answers are its control.
        **kwargs: as in ChatDataModule.

    Source:
        Taylor et al., arXiv:2508.17511.
    """
