"""What travels between ranks in half precision arrives as it was sent, as far as float16 goes."""

import pytest
import torch

from recsys_had.training.sharder import HalfCodecs


@pytest.mark.parametrize("divisor", [0.3, 1, 449, 65_536 * 64])
def test_gradients_of_few_rows_and_of_many_arrive(divisor: float) -> None:
    """A fixed scale clips those of an epoch's last rows, or loses those of large batches."""
    codecs = HalfCodecs()
    codecs.set_scale(divisor, world_size=2)
    # What a mean over so many rows makes of derivatives of the logit by a vector's numbers.
    gradient = 2 / divisor * torch.tensor([[1e-3, -0.02, 0.5, 1.0, -40.0, 3000.0, 0.0, 2e-4]])
    for name, one in codecs.registry.items():
        sent = one.backward.encode(gradient.clone())
        assert sent.dtype == torch.float16, name
        arrived = one.backward.decode(sent)
        torch.testing.assert_close(arrived, gradient, rtol=2e-3, atol=0)


def test_nothing_that_counts_is_no_trouble() -> None:
    codecs = HalfCodecs()
    codecs.set_scale(0.0, world_size=2)
    for one in codecs.registry.values():
        assert not one.backward.decode(one.backward.encode(torch.zeros(1, 8))).any()
