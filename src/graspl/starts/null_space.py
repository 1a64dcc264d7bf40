"""A start from a null space of what sites read."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError, TooFewQuestionsError
from graspl.host import Host
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from graspl.runs import RunFolder, write_json_atomic
from graspl.starts.base import Start
from graspl.starts.bases import Kind, inputs_of, random_inputs
from graspl.starts.moments import Moments, first_readers, gradients_of, moments_of
from graspl.starts.response import Outlook, Responses, first_steps, foreseen, responses
from graspl.starts.trial import Trial, tried

log = logging.getLogger(__name__)
STEP = 48  # Rows of the task whose gradient a first step follows
HELD_OUT = 10  # Every so many rows of text one is kept to measure the response on


@dataclass(frozen=True)
class _Text:
    """General text: the rows to read, and those held out to measure the response on; of very few rows both are the same."""

    name: str
    rows: list[TokenizedConversation]

    @property
    def read(self) -> list[TokenizedConversation]:
        return self.rows if self._few() else [row for place, row in enumerate(self.rows) if place % HELD_OUT]

    @property
    def held(self) -> list[TokenizedConversation]:
        return self.rows if self._few() else self.rows[::HELD_OUT]

    def _few(self) -> bool:
        return len(self.rows) < HELD_OUT

    def __str__(self) -> str:
        """Say which rows a response is measured on."""
        few = f"the {len(self.rows)} rows of {self.name}, too few to hold any out,"
        return few if self._few() else f"{len(self.held)} held-out rows of {self.name}"


@dataclass
class NullSpaceStart(Start):
    """The rows of A begin as inputs that general text does not use and stay frozen; B begins at zero.

    The update's response to an input x is at most ||s B|| ||A x||, whatever the optimizer does: what A does not read, the
    adapter cannot react to. The general text is `data.text`. It must hold what is to stay as it is, and questions of the
    task's form on other topics above all (docs/experiments.md): `own_text` are such questions.

    Source:
        Own. Related: LoRA-Null (arXiv:2503.02659), SC-LoRA (arXiv:2505.23724), CorDA (arXiv:2406.05223).
    """

    kind: Kind = "contrastive"
    """Which inputs. `gradient`: along which the loss falls and general text is silent, the top solutions of
    G^T G a = lambda (S_general + c I) a. `contrastive`: loud on the task's rows and silent on general text, with S_task in
    place of G^T G. `null`: the bottom eigenvectors of S_general, as LoRA-Null has them. `difference`: the top eigenvectors
    of S_task - S_general, as SC-LoRA has them for outputs. `random`: the control, without text."""
    ridge: PositiveFloat = 1e-2
    """c over the mean eigenvalue of S_general: higher trusts the text less."""
    limit: PositiveInt = 200
    """Rows of the task, and of general text, that are read, from the start."""
    widest: PositiveInt = 8192
    """Inputs of a site; for wider ones a sample of tokens stands for all, and no (in, in) matrix is formed."""
    tokens: PositiveInt = 512
    """The fewest that a sample has, where the rows have so many; at most it has twice as many."""
    memory: PositiveFloat = 4.0
    """GiB for second moments and gradients; sites that do not fit wait for another pass over the rows."""
    own_text: NonNegativeInt = 0
    """Rows that the base model writes itself before training, in the form of the task's questions, to be read as general
    text too: alone where there is no `data.text`. They are kept in the run's folder, as `own_text.jsonl`. Of a model that
    cannot write questions nothing is read."""
    train_A: bool = False
    """Whether A is trained; the bound above holds only for a frozen one."""
    trial: NonNegativeInt = 0
    """Steps of a short fit before training that, beside a naive one, says how much of the side effect will be kept: on
    `data.text`, else on `own_text` (`graspl.starts.trial`). None is made where A's response says already that the null
    space is likely to hold."""

    def __post_init__(self) -> None:
        for option in ("own_text", "trial"):
            if self.kind == "random" and getattr(self, option):
                raise GrasplError(f"start.{option}: kind random reads no text; set {option} to 0")
        self.read: dict[str, Responses] = {}
        self.tried: Trial | None = None
        self._began: dict[str, Tensor] = {}

    @property
    def predicts(self) -> bool:
        """Whether general text is read."""
        return self.kind != "random"

    @property
    def outlook(self) -> Outlook | None:
        """The prediction: the trial's where there was one, else that for the text to which A responds most."""
        if self.tried is not None:
            return self.tried.outlook
        return max(self.read.values(), key=lambda each: each.typical).outlook if self.read else None

    @torch.no_grad()
    def begin(self, host: Host) -> None:
        """Set A of every site."""
        plain = {site.name: site.A.detach().clone() for site in host.whole_sites()}
        texts = {} if self.kind == "random" else self._texts(host)
        self._begin(host, texts)
        if texts:
            self._foresee(host, plain, texts)
        self._began = {site.name: site.A.detach().cpu().clone() for site in host.whole_sites()}

    def _begin(self, host: Host, texts: dict[str, "_Text"]) -> None:
        if self.kind == "random":
            generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
            for site in host.sites:
                _set(
                    site,
                    _shared(random_inputs(site.shape[1], site.A.shape[0], generator).to(site.A.device), 0),
                )
            return
        text = [row for name in texts for row in texts[name].read]
        rows = host.trainer.datamodule.train_conversations()[: self.limit]
        log.info("null space: reading %d rows of the task and %d of general text", len(rows), len(text))
        for sites in self._groups(host.sites, first_readers(host, rows[0], host.sites)):
            general, task = (
                moments_of(host, each, sites, widest=self.widest, tokens=self.tokens) for each in (text, rows)
            )
            slopes = gradients_of(host, rows, sites) if self.kind == "gradient" else {}
            self._set_all(sites, task, general, slopes)

    def _foresee(self, host: Host, plain: dict[str, Tensor], texts: dict[str, "_Text"]) -> None:
        """Measure how A responds to general text, and how a first step from it does beside one from the `plain` A."""
        every = host.trainer.datamodule.train_conversations()
        rows = every[: self.limit]
        steps = first_steps(host, plain, rows[:STEP])
        for name, each in texts.items():
            fresh = every[self.limit :][: len(each.held)] or rows[: len(each.held)]
            before = self.read[name] = foreseen(host, steps, fresh, each.held)
            log.info("null space: before training A's response to %s is %s", each, before.sentence())
            log.info("null space: %s on text like %s", before.outlook, each.name)
        if self.trial and self.outlook != "likely to hold":
            self._try(host, plain, texts)

    def _try(self, host: Host, plain: dict[str, Tensor], texts: dict[str, _Text]) -> None:
        """Let a short fit from here and a naive one show how much of the side effect is kept."""
        log.info(
            "null space: a trial of %d steps, and a naive one, are measured and thrown away",
            self.trial,
        )
        held = {name: each.held for name, each in texts.items()}
        self.tried = tried(host, plain, held, steps=self.trial, train_A=self.train_A)
        if self.tried is not None:
            log.info("null space: %s", self.tried.sentence())

    @torch.no_grad()
    def end(self, host: Host) -> None:
        """Measure how the finished update responds to general text that was not read; log it and keep it in the folder."""
        moved = self._moved(host)
        if moved:
            log.info(
                "null space: A has moved, by up to %.1f %% of its length: nothing bounds what it reacts to",
                100 * moved,
            )
        if self.kind == "random":
            return
        measured = {}
        for name, each in self._texts(host).items():
            rows = host.trainer.datamodule.train_conversations()[: len(each.held)]
            found = responses(host, rows, each.held)
            log.info("null space: the update's response to %s is %s", each, found.sentence())
            # A fit that went on from a checkpoint does not know it
            before = self.read.get(name)
            told = {"before training": {**before.plain(), "outlook": before.outlook}} if before else {}
            measured[name] = {**found.plain(), **told}
        if host.trainer.is_global_zero:
            folder = RunFolder(Path(host.trainer.default_root_dir))
            write_json_atomic(
                folder.null_space,
                {"kind": self.kind, "ridge": self.ridge, "A moved": moved, **measured, **self._trial_told()},
            )

    def _trial_told(self) -> dict[str, Any]:
        return {} if self.tried is None else {"trial": {**asdict(self.tried), "outlook": self.tried.outlook}}

    def _moved(self, host: Host) -> float | None:
        """Return by how much of its length A has moved from where it began, the largest over sites; None if nobody knows.

        That is measured, whatever the options say; a fit that went on from a checkpoint does not know where A began.
        """
        sites = host.whole_sites()
        if not self._began:
            return None
        return max(
            float((site.A.detach().cpu() - began).norm() / began.norm())
            for site, began in ((site, self._began[site.name]) for site in sites)
        )

    def _texts(self, host: Host) -> dict[str, "_Text"]:
        """Return the general text to read, tokenized, by where it comes from; every process must call it."""
        data = host.trainer.datamodule
        found = {"text": _Text("text", data.text_conversations()[: self.limit])}
        if self.own_text:
            found["own_text"] = _Text(
                "the model's own text", self._own_text(host, instead=found["text"].rows)
            )
        found = {name: each for name, each in found.items() if each.rows}
        if not found:
            fix = "give unlabelled conversations on other topics, set own_text, or use PlainStart"
            raise GrasplError(f"data.text: is missing, and NullSpaceStart reads general text; {fix}")
        return found

    def _own_text(self, host: Host, instead: list[TokenizedConversation]) -> list[TokenizedConversation]:
        """Return what the model wrote; nothing where it cannot write questions and there is text `instead`."""
        try:
            return host.own_text(self.own_text)
        except TooFewQuestionsError as error:
            if not instead:
                raise
            if not self.read:  # Once is enough
                log.warning("null space: general text is data.text alone (%s)", error)
            return []

    def _groups(self, sites: Sequence[Site], first: dict[str, str]) -> Iterator[list[Site]]:
        """Yield sites whose moments of both sides fit into the memory, in the order of the model.

        Sites whose `first` reader is in the group too share its moments.
        """
        group: list[Site] = []
        taken = 0.0
        for site in sites:
            needed = self._gib(site, shared=any(first[site.name] == first[each.name] for each in group))
            if group and taken + needed > self.memory:
                yield group
                group, taken, needed = [], 0.0, self._gib(site)
            group.append(site)
            taken += needed
        yield group

    def _gib(self, site: Site, *, shared: bool = False) -> float:
        """Return the memory of a site's moments of both sides, float64, and of its gradient, float32."""
        size = site.shape[1]
        numbers = 0 if shared else size * 4 * self.tokens if size > self.widest else size * size
        slope = 4 * size * site.shape[0] if self.kind == "gradient" else 0
        return (2 * 8 * numbers + slope) / 2**30

    def _set_all(
        self,
        sites: Sequence[Site],
        task: dict[str, Moments],
        general: dict[str, Moments],
        slopes: dict[str, Tensor],
    ) -> None:
        """Solve once for sites that read the same, unless their gradients differ, divided over the processes, and set A."""
        ours, world = (dist.get_rank(), dist.get_world_size()) if _many() else (0, 1)
        keys = {site.name: site.name if slopes else id(general[site.name]) for site in sites}
        distinct = {keys[site.name]: site for site in sites}
        owner = {key: place % world for place, key in enumerate(distinct)}
        bases: dict[Any, Tensor] = {}
        for key, site in distinct.items():
            name, r, size = site.name, site.A.shape[0], site.shape[1]
            basis = torch.empty(size, r, dtype=torch.float64, device=site.A.device)
            if owner[key] == ours:
                found = inputs_of(self.kind, task[name], general[name], slopes.get(name), r, self.ridge)
                basis.copy_(found)
            bases[key] = _shared(basis, owner[key])
        for site in sites:
            _set(site, bases[keys[site.name]])


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()


def _shared(basis: Tensor, owner: int) -> Tensor:
    """Return what the owning process has, in every process."""
    if _many():
        dist.broadcast(basis, src=owner)
    return basis


def _set(site: Site, basis: Tensor) -> None:
    rows = basis.mT.contiguous().to(site.A.device, site.A.dtype)
    site.A.copy_(like(rows, site.A, split=True))
