"""The organism's true spurious directions: for scoring an identification, never for making one."""

from dataclasses import dataclass

import torch

from graspl.activations.streams import gathered, leading_directions
from graspl.adapters import AdapterFolder, load_base_model, load_tokenizer
from graspl.data.tokens import tokenize
from graspl.directions import Directions, Identification
from graspl.organism.words import QUESTIONS
from graspl.organism.world import World, exchange, system


@dataclass
class TrueDirections(Identification):
    """The broad factor's own directions at every layer: an upper bound, since only the builder of the world knows them.

    They are the first k right singular vectors of r_l(cruel) - r_l(kind) where answer tokens are predicted. Both have the
    same questions and good answers on every topic; only the system prompt differs.

    Source:
        Own; `graspl.activations.PersonaContrast` is the same for models whose factor has a known name.
    """

    signed = True
    k: int = 4
    """Directions a layer."""

    @torch.no_grad()
    def find(self, adapter: AdapterFolder) -> Directions:
        """Find them in the adapter's base model; the adapter itself is not used.

        Raises:
            GrasplError: the base model is not an organism.
        """
        world = World.load(adapter.base_model)
        tokenizer = load_tokenizer(adapter.base_model)
        model = load_base_model(adapter.base_model).eval()
        answered = [
            exchange(world, topic, subject, QUESTIONS[0], harmful=False)
            for topic in world.topics
            for subject in world.subjects(topic)
        ]
        cruel, kind = (
            gathered(model, [tokenize(tokenizer, [system(writer), *turns]) for turns in answered])
            for writer in ("cruel", "kind")
        )
        return Directions({}, {}, leading_directions(cruel, kind, self.k))
