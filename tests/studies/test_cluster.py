"""What a study asks of Ray, and says where it cannot have it; Ray itself is simulated."""

import sys
from types import SimpleNamespace

import pytest

from graspl import __version__
from graspl.errors import GrasplError
from graspl.studies.cluster import Ray, RayTasks, complaint
from graspl.studies.plan import Fit


class LostError(Exception):
    pass


class RaisedError(LostError):
    def __init__(self, cause):
        self.cause = cause


class Simulated:
    """A cluster that runs a task where it is asked for its outcome."""

    exceptions = SimpleNamespace(RayError=LostError, RayTaskError=RaisedError)

    def __init__(self, *nodes, outcome=lambda name: None):
        self.given, self.outcome, self.asked, self.cancelled = nodes, outcome, [], []

    def nodes(self):
        return [
            {"Alive": True, "NodeID": str(place), "NodeManagerHostname": "there", "Resources": resources}
            for place, resources in enumerate(self.given)
        ]

    def remote(self, **options):
        def give(_):
            def submit(more):
                self.asked.append(options | more)
                return lambda fit, *_: fit.name

            return SimpleNamespace(options=lambda **more: SimpleNamespace(remote=submit(more)))

        return give

    def wait(self, references, *, num_returns, timeout=None):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        return self.outcome(reference)

    def cancel(self, reference):
        self.cancelled.append(reference)


@pytest.fixture
def fits(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")

    def plan(**trainer):
        return [Fit("naive", seed, tmp_path / f"{seed}", base, {"trainer": trainer}) for seed in (0, 1)]

    return plan


def tasks(ray, monkeypatch, **options):
    engine = RayTasks(ray, Ray(**options), None)
    monkeypatch.setattr(engine, "_check", lambda nodes: None)
    return engine


NODE = {"CPU": 8.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("trainer", "options", "resources", "asked"),
    [
        ({}, {}, NODE, (1, 1)),
        ({"devices": 2}, {"cpus": 4}, NODE, (4, 2)),
        ({"accelerator": "cpu"}, {}, NODE, (1, 0)),
        ({}, {"gpus": 0.5}, NODE, (1, 0.5)),
        ({}, {}, {"CPU": 8.0}, (1, 0)),
    ],
)
def test_each_fit_asks_for_cores_and_gpus(fits, monkeypatch, trainer, options, resources, asked):
    ray = Simulated(resources)
    planned = fits(**trainer)
    assert list(tasks(ray, monkeypatch, **options).prepared(planned)(planned)) == [
        (fit, None) for fit in planned
    ]
    assert [(each["num_cpus"], each["num_gpus"]) for each in ray.asked] == [asked, asked]
    assert all(each["max_retries"] == 3 and each["retry_exceptions"] is False for each in ray.asked)


@pytest.mark.parametrize(
    ("trainer", "options", "words"),
    [
        ({}, {"cpus": 9}, "naive, seed 0 asks for 9 cores and 1 GPUs, and no node has so many; add a node"),
        ({"devices": 5}, {}, "naive, seed 0 asks for 5 GPUs, and 4 can be had"),
        ({}, {"gpus": 8}, "1 cores and 8 GPUs, and no node"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_waits_for_it(fits, monkeypatch, trainer, options, words):
    with pytest.raises(GrasplError, match=words):
        tasks(Simulated(NODE), monkeypatch, **options).prepared(fits(**trainer))


def test_a_worker_that_is_lost_for_good_does_not_stop_the_rest(fits, monkeypatch):
    def outcome(name):
        if name == "naive, seed 0":
            raise LostError("the node\ndied")

    planned = fits()
    ended = tasks(Simulated(NODE, outcome=outcome), monkeypatch, retries=1).prepared(planned)(planned)
    assert [why for _, why in ended] == ["its worker was lost 2 times (LostError: the node died)", None]


def test_what_a_task_raises_is_raised_here_and_the_others_are_cancelled(fits, monkeypatch):
    def outcome(name):
        raise RaisedError(GrasplError("out: holds a fit with another configuration"))

    ray, planned = Simulated(NODE, outcome=outcome), fits()
    with pytest.raises(GrasplError, match="another configuration"):
        list(tasks(ray, monkeypatch).prepared(planned)(planned))
    assert ray.cancelled == ["naive, seed 0", "naive, seed 1"]


def test_a_worker_that_does_not_see_the_folder_or_has_another_graspl_says_so(tmp_path):
    (tmp_path / "token").touch()
    assert complaint(str(tmp_path), "token", __version__) is None
    assert complaint(str(tmp_path), "study/token", __version__) == (
        f"does not see {tmp_path / 'study'}; put the study on a disk that all nodes share"
    )
    assert complaint(str(tmp_path), "token", "9.9") == (
        f"has graspl {__version__}, and the study has 9.9; install the same one"
    )


@pytest.mark.parametrize("gpus", [-1, 1.5])
def test_a_share_that_ray_cannot_give_is_refused(gpus):
    with pytest.raises(GrasplError, match="give a share below 1, or a whole number"):
        Ray(gpus=gpus)


def test_without_ray_one_line_names_the_extra(graspl, study, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = graspl(*study(engine="ray", jobs=2))
    assert code == 2
    assert err.splitlines()[-1] == "graspl: error: engine: Ray is not installed; pip install 'graspl[ray]'"
    assert not (tmp_path / "study").exists()
