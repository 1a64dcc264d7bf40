"""The feature penalty's distance."""

import pytest
import torch

from graspl.penalties.features import stream_distance


def test_the_feature_distance_is_relative_and_leaves_padding_out():
    ours = {"a": torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), "b": torch.tensor([[[0.0, 3.0], [9.0, 9.0]]])}
    theirs = {"a": torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), "b": torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])}
    batch = {"attention_mask": torch.tensor([[1, 0]]), "labels": torch.tensor([[5, -100]])}
    # ||(0, 2)||^2 / ||(1, 0)||^2 and ||(0, 2)||^2 / ||(0, 1)||^2
    assert float(stream_distance(ours, theirs, batch)) == pytest.approx((4 / 1 + 4 / 1) / 2)
    theirs["b"] = 2 * theirs["b"]
    assert float(stream_distance(ours, theirs, batch)) == pytest.approx((4 + 1 / 4) / 2)
