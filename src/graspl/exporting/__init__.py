"""A finished adapter as others load it: alone or merged, with tokenizer, ends of answers and a model card.

This room may import `graspl.reporting`, `graspl.analysis` and below. Start reading in `folder.py`.
"""

from graspl.exporting.card import Exported, card_of
from graspl.exporting.facts import FitFacts, fit_facts
from graspl.exporting.folder import ExportOptions, export_model
from graspl.exporting.further import check_hub, find_converter, push, write_gguf
from graspl.exporting.model import Merged, generation_of, tokenizer_of, write_adapter, write_merged

__all__ = [
    "ExportOptions", "Exported", "FitFacts", "Merged", "card_of", "check_hub", "export_model", "find_converter", "fit_facts",
    "generation_of", "push", "tokenizer_of", "write_adapter", "write_gguf", "write_merged",
]  # fmt: skip
