"""What the encoder sees of a picture, against the conversions of pixels that the rest of the program uses."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS, PixelConvention  # noqa: E402
from deepsim.train.optimize.view import View  # noqa: E402

CONVENTIONS = {
    "caffe": CAFFE_PIXELS,
    "imagenet": IMAGENET_PIXELS,
    "rgb": PixelConvention("RGB", (123.0, 117.0, 104.0)),
    "halves": PixelConvention("RGB", (127.5, 127.5, 127.5), (1 / 127.5,) * 3),
}


@pytest.mark.parametrize("target", CONVENTIONS)
@pytest.mark.parametrize("source", CONVENTIONS)
def test_a_picture_of_known_colours_arrives_in_the_encoders_pixels(source, target):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    rgb[0, :, :] = (255, 0, 10)  # red
    picture = torch.from_numpy(CONVENTIONS[source].to_network(rgb)).double()
    seen = View.between(CONVENTIONS[source], CONVENTIONS[target], 256, 227)(picture)
    wanted = CONVENTIONS[target].to_network(rgb[:, 14:241, 14:241])
    assert np.abs(seen.numpy() - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize(("full", "side", "offset"), [(256, 227, 14), (240, 227, 6), (256, 224, 16)])
def test_the_square_is_central_as_the_pipelines_cut_it(full, side, offset):
    assert View.between(CAFFE_PIXELS, CAFFE_PIXELS, full, side).offset == offset


def test_a_gradient_goes_back_through_crop_order_and_scale():
    view = View.between(CAFFE_PIXELS, IMAGENET_PIXELS, 6, 4)
    picture = torch.zeros(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    view(picture)[0, 0, 0, 0].backward()  # red, at the corner
    wanted = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    wanted[0, 2, 1, 1] = 1 / 58.395
    assert torch.allclose(picture.grad, wanted)


def test_resizing_is_antialiased_and_keeps_values_out_of_range():
    from PIL import Image

    values = np.random.default_rng(1).normal(0, 200, (64, 64)).astype(np.float32)
    picture = torch.from_numpy(np.stack([values] * 3))[None]
    seen = View.between(CAFFE_PIXELS, CAFFE_PIXELS, 64, 27, "resize")(picture)
    wanted = np.asarray(Image.fromarray(values).resize((27, 27), Image.Resampling.BILINEAR))
    assert np.abs(seen[0, 0].numpy() - wanted).max() < 1e-3


def test_shifts_are_each_rows_own_and_come_back():
    view = View.between(CAFFE_PIXELS, CAFFE_PIXELS, 4, 4)
    picture = torch.zeros(2, 3, 4, 4, requires_grad=True)
    view(picture, [(1, 0), (0, -1)])[:, 0, 0, 0].sum().backward()
    assert picture.grad.nonzero().tolist() == [[0, 0, 3, 0], [1, 0, 0, 1]]


def test_a_picture_smaller_than_the_encoders_square_is_refused():
    with pytest.raises(UsageError, match=r"picture of 200 pixels: the encoder takes 227 .* Pass --fit resize"):
        View.between(CAFFE_PIXELS, CAFFE_PIXELS, 200, 227)
