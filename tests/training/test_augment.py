"""Augmentation against a slow reference, its randomness, and the normalisation."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nls_tune.training.augment import Augmentation, AugmentationDraws, normalise


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(batch: int, channels: int = 3, height: int = 8, width: int = 8, seed: int = 1) -> Tensor:
    # From 1, so that every 0 in a result comes from the padding.
    return torch.randint(1, 256, (batch, channels, height, width), generator=_generator(seed), dtype=torch.uint8)


def _mirrored(position: int, size: int) -> int:
    """Walk from an outside position into the image, turning at its first and last pixel."""
    while size > 1 and not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position if size > 1 else 0


def _reference_image(image: Tensor, padding: int, y: int, x: int, flip: bool, reflect: bool = False) -> Tensor:
    """Pad, crop and flip one image, pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            source_y = i + y - padding
            source_x = (width - 1 - j if flip else j) + x - padding
            if reflect:
                source_y, source_x = _mirrored(source_y, height), _mirrored(source_x, width)
            if 0 <= source_y < height and 0 <= source_x < width:
                out[:, i, j] = image[:, source_y, source_x]
    return out


def _reference_cutout(image: Tensor, side: int, y: int, x: int) -> Tensor:
    out = image.clone()
    top, left = y - side // 2, x - side // 2
    out[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    return out


def _fields_equal(one: AugmentationDraws, other: AugmentationDraws, *names: str) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names or DRAWS)


DRAWS = [field.name for field in dataclasses.fields(AugmentationDraws)]
sizes = st.integers(1, 7)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    batch=st.integers(0, 4),
    channels=st.sampled_from([1, 3]),
    height=sizes,
    width=sizes,
    padding=st.integers(0, 9),
    flip=st.booleans(),
    reflect=st.booleans(),
    side=st.integers(0, 20),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.bfloat16]),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 2**31),
)
def test_crop_flip_and_cutout_equal_the_reference(
    batch, channels, height, width, padding, flip, reflect, side, dtype, memory_format, seed
):
    augmentation = Augmentation(crop_padding=padding, flip=flip, cutout=side, reflect=reflect)
    images = _images(batch, channels, height, width).to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    draws = augmentation.draw(batch, height, width, _generator(seed))
    out = augmentation.apply(images, draws)
    floats = images if dtype.is_floating_point else images.float()
    cut = augmentation.apply_cutout(floats, draws)
    assert torch.equal(images, before)
    assert (out.dtype, cut.dtype) == (dtype, floats.dtype)
    assert out.shape == cut.shape == images.shape
    for b in range(batch):
        y, x, flipped, cut_y, cut_x = (int(getattr(draws, name)[b]) for name in DRAWS)
        assert torch.equal(out[b], _reference_image(images[b], padding, y, x, flip and bool(flipped), reflect))
        assert torch.equal(cut[b], _reference_cutout(floats[b], side, cut_y, cut_x))


def test_the_padding_is_black_before_and_cutout_grey_after_normalisation():
    mean, std = torch.tensor([0.5]), torch.tensor([0.25])
    white = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    zero = torch.zeros(1, dtype=torch.int64)
    draws = AugmentationDraws(zero, zero, zero.bool(), zero + 3, zero + 3)
    cropped = Augmentation(crop_padding=1).apply(white, draws)
    out = Augmentation(cutout=2).apply_cutout(normalise(cropped, mean, std), draws)
    expected = torch.tensor([[-2.0, -2, -2, -2], [-2, 2, 2, 2], [-2, 2, 0, 0], [-2, 2, 0, 0]])
    torch.testing.assert_close(out[0, 0], expected)


@pytest.mark.parametrize("padding", [1, 3])
def test_reflection_is_that_of_torch(padding):
    images, zero = _images(3, height=4, width=5), torch.zeros(3, dtype=torch.int64)
    padded = torch.nn.functional.pad(images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            draws = AugmentationDraws(zero + y, zero + x, zero.bool(), zero, zero)
            out = Augmentation(crop_padding=padding, reflect=True).apply(images, draws)
            assert torch.equal(out, padded[:, :, y : y + 4, x : x + 5])


@pytest.mark.parametrize("padding", [1, 4])
def test_offsets_centres_and_flips_are_uniform_and_drawn_apart(padding):
    n = 40_000
    draws = Augmentation(crop_padding=padding, flip=True, cutout=3).draw(n, 8, 5, _generator(3))
    for values, cells in [
        (draws.crop_y, 2 * padding + 1),
        (draws.crop_x, 2 * padding + 1),
        (draws.flip.long(), 2),
        (draws.cut_y, 8),
        (draws.cut_x, 5),
    ]:
        counts = torch.bincount(values, minlength=cells).double()
        assert len(counts) == cells
        # Chi squared has mean cells - 1 and variance 2 (cells - 1); 6 deviations never fail by chance.
        chi2 = ((counts - n / cells) ** 2 / (n / cells)).sum().item()
        assert chi2 < cells - 1 + 6 * (2 * (cells - 1)) ** 0.5
    for one, other in [(draws.crop_y, draws.crop_x), (draws.cut_y, draws.cut_x), (draws.crop_x, draws.flip)]:
        assert abs(torch.corrcoef(torch.stack((one.double(), other.double())))[0, 1]) < 0.03


def test_draws_follow_the_generator_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=4)
    one = augmentation.draw(100, 32, 32, _generator(5))
    assert _fields_equal(one, augmentation.draw(100, 32, 32, _generator(5)))
    assert not _fields_equal(one, augmentation.draw(100, 32, 32, _generator(6)))
    generator = _generator(5)
    augmentation.draw(100, 32, 32, generator)
    assert not _fields_equal(one, augmentation.draw(100, 32, 32, generator))
    assert torch.equal(before, torch.get_rng_state())


def test_switching_one_part_off_leaves_the_draws_of_the_others():
    everything = Augmentation(crop_padding=4, flip=True, cutout=4).draw(50, 32, 32, _generator())
    no_crop = Augmentation(flip=True, cutout=4).draw(50, 32, 32, _generator())
    no_cutout = Augmentation(crop_padding=4, flip=True).draw(50, 32, 32, _generator())
    assert _fields_equal(everything, no_crop, "flip", "cut_y", "cut_x")
    assert _fields_equal(everything, no_cutout, "crop_y", "crop_x", "flip")


def test_draws_are_indexed_like_the_batch():
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=3)
    images = _images(10)
    draws = augmentation.draw(10, 8, 8, _generator())
    whole = augmentation.apply(images, draws)
    blanked = augmentation.apply_cutout(images.float().contiguous(memory_format=torch.channels_last), draws)
    assert blanked.is_contiguous(memory_format=torch.channels_last)
    assert len(draws) == 10
    for index in (slice(0, 4), slice(8, 20), torch.tensor([7, 0, 7]), torch.arange(10) > 6):
        part = draws[index]
        assert len(part) == len(images[index])
        assert torch.equal(augmentation.apply(images[index], part), whole[index])
        assert torch.equal(augmentation.apply_cutout(images[index].float(), part), blanked[index])


@pytest.mark.parametrize("reflect", [False, True])
def test_a_step_reads_nothing_back_from_the_device(reflect):
    """On the meta device there are no values: whatever needs one (item, nonzero, a mask as index) raises."""
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=8, reflect=reflect)
    draws = augmentation.draw(16, 32, 32, _generator()).to("meta")
    images = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device="meta")
    mean = torch.empty(3, device="meta")
    batch = draws[:8]
    out = augmentation.apply_cutout(normalise(augmentation.apply(images, batch), mean, mean), batch)
    assert out.device.type == "meta"
    assert out.shape == images.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_without_waiting():
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=8)
    images = _images(16, height=32, width=32)
    draws = augmentation.draw(16, 32, 32, _generator())
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.2])
    expected = augmentation.apply_cutout(normalise(augmentation.apply(images, draws), mean, std), draws)
    images, draws, mean, std = images.cuda(), draws.to("cuda"), mean.cuda(), std.cuda()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = augmentation.apply_cutout(normalise(augmentation.apply(images, draws), mean, std), draws)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.testing.assert_close(out.cpu(), expected)


def _formula(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return (x.double() - mean.double().view(shape)) / std.double().view(shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalise_uint8_images(channels, memory_format):
    images = _images(5, channels).contiguous(memory_format=memory_format)
    mean, std = torch.tensor([0.49, 0.48, 0.44])[:channels], torch.tensor([0.2, 0.19, 0.21])[:channels]
    out = normalise(images, mean, std)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=memory_format)
    assert out.stride() == images.stride()
    torch.testing.assert_close(out.double(), _formula(images.double() / 255, mean, std), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_normalise_returns_float32_from_any_float(dtype):
    images = torch.rand(2, 3, 4, 4, generator=_generator()).to(dtype)
    rows = torch.tensor([[1999.0, -1.0], [2000.0, 0.0], [2001.5, 5.0]])  # precise where the mean is large
    for x, mean, std, tolerance in (
        (images, [0.5, 0.4, 0.3], [0.2, 0.2, 0.2], {"rtol": 1e-5, "atol": 1e-5}),
        (rows, [2000.0, 1.0], [1e-3, 2.0], {"rtol": 1e-6, "atol": 0}),
    ):
        out = normalise(x, torch.tensor(mean), torch.tensor(std))
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.double(), _formula(x, torch.tensor(mean), torch.tensor(std)), **tolerance)
