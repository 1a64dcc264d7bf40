import pytest
import torch
from conftest import make_model
from hypothesis import assume, given
from hypothesis import strategies as st

from graspl.adapters.answers import answer_places
from graspl.adapters.forward import model_logits
from graspl.data import TokenizedConversation
from graspl.data.batches import PackedCollator, PaddedCollator, TrainLoader, TrainSampler, answer_index, pack

rows_of = st.lists(st.integers(1, 20), min_size=1, max_size=60)


def row(length, seed=0):
    ids = torch.randint(6, 30, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return TokenizedConversation(ids, [-100] * (length // 2) + ids[length // 2 :])


@given(lengths=rows_of, batch_size=st.integers(1, 7), world=st.integers(1, 3), epoch=st.integers(0, 3))
def test_an_epoch_gives_every_row_and_the_same_order_again(lengths, batch_size, world, epoch):
    assume(len(lengths) >= world)
    samplers = [
        TrainSampler(lengths, batch_size, num_replicas=world, rank=rank, seed=3) for rank in range(world)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    given_ = [list(sampler) for sampler in samplers]
    assert {index for part in given_ for index in part} == set(range(len(lengths)))
    assert len({len(part) for part in given_}) == 1  # ranks make the same number of steps
    assert given_ == [list(sampler) for sampler in samplers]


def test_epochs_and_seeds_differ():
    orders = set()
    for seed in range(2):
        sampler = TrainSampler([1] * 40, 4, num_replicas=1, rank=0, seed=seed)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 4


def test_rows_of_like_length_come_together():
    lengths = torch.randint(1, 1000, (800,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(lengths_for_sampler):
        order = list(TrainSampler(lengths_for_sampler, 8, num_replicas=1, rank=0, seed=0))
        batches = [order[i : i + 8] for i in range(0, 800, 8)]
        return sum(8 * max(lengths[i] for i in batch) for batch in batches) / sum(lengths)

    assert padding(lengths) < 1.2 < 1.5 < padding([1] * 800)


def loader(num_workers=0):
    rows = list(range(23))
    sampler = TrainSampler([1] * 23, 4, num_replicas=1, rank=0, seed=1)
    return TrainLoader(rows, sampler, batch_size=4, num_workers=num_workers, collate_fn=list)


@pytest.mark.parametrize("given_before", [0, 1, 5])
def test_a_loader_goes_on_with_the_very_next_batch(given_before):
    whole = list(loader())
    first = loader()
    iterator = iter(first)
    for _ in range(given_before):
        next(iterator)
    second = loader()
    second.load_state_dict(first.state_dict())
    assert list(second) == whole[given_before:]
    assert list(second) == whole  # the next epoch is whole again
    assert len(second) == len(whole)


def test_after_a_finished_epoch_nothing_is_skipped():
    first, second = loader(), loader()
    whole = list(first)
    second.load_state_dict(first.state_dict())
    assert list(second) == whole


def test_a_loader_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(before, torch.get_rng_state())


@given(lengths=rows_of, seed=st.integers(0, 9))
def test_packs_hold_every_row_once_within_the_limit(lengths, seed):
    rows = [row(length, index) for index, length in enumerate(lengths)]
    packs = pack(rows, max_length=20, seed=seed)
    assert sorted(id(r) for p in packs for r in p) == sorted(id(r) for r in rows)
    assert all(sum(len(r) for r in p) <= 20 for p in packs)


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "llama"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_rows_in_a_pack_do_not_see_one_another(kind, attention):
    """Pitfall: packing by concatenation alone lets a row attend to the rows before it."""
    model = make_model(kind).eval()
    model.set_attn_implementation(attention)
    rows = [row(5, 1), row(9, 2), row(7, 3)]
    packed = PackedCollator(1)([rows[:2], rows[2:]])
    apart = PaddedCollator(1)(rows)
    with torch.no_grad():
        together = model_logits(model, packed)
        alone = model_logits(model, apart)
        crossed = model(input_ids=packed["input_ids"], use_cache=False).logits
    torch.testing.assert_close(together[0, :5], alone[0, :5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[0, 5:14], alone[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1, :7], alone[2, :7], rtol=1e-4, atol=1e-5)
    assert (crossed[0, 5:14] - alone[1]).abs().max() > 1e-3  # positive control
    assert packed["labels"][0, 5] == -100


def test_padding_is_masked_and_not_learnt():
    batch = PaddedCollator(1)([row(2), row(4)])
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["input_ids"][0, 2:].tolist() == [1, 1]
    assert batch["labels"][0, 2:].tolist() == [-100, -100]


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=6), packed=st.booleans())
def test_answers_are_where_the_mask_says(lengths, packed):
    rows = [row(length, index) for index, length in enumerate(lengths)]
    batch = PackedCollator(1)([rows, rows[:1]]) if packed else PaddedCollator(1)(rows)
    mask = answer_places(batch["labels"])
    assert batch["answer_index"].tolist() == mask.flatten().nonzero().squeeze(-1).tolist()
    assert torch.equal(batch["answer_index"], answer_index(batch["labels"]))
