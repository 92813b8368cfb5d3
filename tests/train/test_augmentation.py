"""What the discriminator sees: the rules one by one, the gradient, and that both of its inputs are changed."""

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.train import augmentation, models, step  # noqa: E402
from deepsim.train.augmentation import augmented  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.encoders import pink_noise  # noqa: E402

SIDE = 32


def images(count=64):
    return 60 * torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_translations_move_whole_pixels_and_fill_with_the_mean():
    x = images(256) + 500  # nothing of a picture is 0
    torch.manual_seed(0)
    found, furthest = augmentation._translated(x), 4
    moves = set()
    for before, after in zip(x, found, strict=True):
        inside = (after[0] != 0).nonzero()
        (top, left), (bottom, right) = inside.min(0).values.tolist(), inside.max(0).values.tolist()
        height, width = bottom - top + 1, right - left + 1
        down, across = (top or height - SIDE), (left or width - SIDE)
        moves.add((down, across))
        source = before[:, max(0, -down) :, max(0, -across) :][:, :height, :width]
        assert torch.equal(after[:, top : bottom + 1, left : right + 1], source)
    assert {down for down, _ in moves} == {across for _, across in moves} == set(range(-furthest, furthest + 1))


def test_colours_keep_to_their_ranges():
    x, torch_seed = images(), 3
    torch.manual_seed(torch_seed)
    found = augmentation._coloured(x)
    shift = found.mean((1, 2, 3)) - x.mean((1, 2, 3))
    assert 30 < float(shift.abs().max()) <= 127.5 / 2 + 1e-3
    grey, before = found.mean(1), x.mean(1)
    contrast = (grey - grey.mean((1, 2), keepdim=True)).std((1, 2)) / (before.std((1, 2)))
    assert 0.5 <= float(contrast.min()) < 0.7
    assert 1.3 < float(contrast.max()) <= 1.5 + 1e-3


def test_a_square_of_half_the_side_is_cut_out():
    torch.manual_seed(0)
    hidden = (augmentation._cut_out(images(256) + 500) == 0)[:, 0]
    areas = hidden.sum((1, 2))
    assert int(areas.max()) == (SIDE // 2) ** 2
    assert int(areas.min()) >= (SIDE // 4) ** 2  # over the edge by half of it at most
    assert bool(hidden.any(0).all())  # anywhere


@pytest.mark.parametrize("how", ["translation", "all"])
def test_the_gradient_reaches_the_images(how):
    x = images(4).double().requires_grad_()
    push = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(of):
        torch.manual_seed(5)
        return augmented(of, how)

    (pull,) = torch.autograd.grad((value(x) * push).sum(), x)
    with torch.no_grad():
        way = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        change = ((value(x + way) - value(x)) * push).sum()  # linear in the images
    assert float(change) == pytest.approx(float((pull * way).sum()), rel=1e-9)


def test_photographs_and_generated_images_are_changed_alike(monkeypatch):
    seen = []

    def note(x, how):
        seen.append((len(x), how, x.requires_grad))
        return augmented(x, how)

    monkeypatch.setattr(step, "augmented", note)
    monkeypatch.setattr(models, "augmented", note)
    config = PRESETS["tiny"].updated({"augmentation": "all", "width": 1 / 64})
    step.train_step(models.build_models(config, torch.device("cpu"), World()), pink_noise(2, 227, seed=1))
    assert seen == [(4, "all", False), (2, "all", True)]  # both for the discriminator's step, then the generator's


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match=r"'mirror', expected none, translation or all"):
        augmented(images(1), "mirror")
