"""The PyTorch networks against the numpy twins, torchvision, and their descriptions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.kernels import reference  # noqa: E402
from deepsim.kernels.layers import parameters  # noqa: E402
from deepsim.runtime.generators import generator_spec  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry  # noqa: E402
from deepsim.runtime.networks import ALEXNET, CAFFENET  # noqa: E402
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS  # noqa: E402
from deepsim.train.discriminator import Discriminator, initialise_discriminator  # noqa: E402
from deepsim.train.encoders import load_encoder, pink_noise, random_encoder  # noqa: E402
from deepsim.train.networks import (  # noqa: E402
    Encoder,
    Generator,
    initialise_generator,
    scored,
    to_image_space,
    to_pixels,
)
from deepsim.train.weights import write_weights  # noqa: E402


def numpy_weights(module):
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("layer", ["norm1", "norm2", "conv3", "pool5", "fc6"])
def test_generator_equals_the_twin(layer):
    spec = generator_spec(layer, width=0.125)
    generator = Generator(spec)
    initialise_generator(generator, torch.Generator().manual_seed(1))
    x = np.random.default_rng(0).standard_normal((1, *spec.input_shape))
    expected = reference.apply_layers(spec.layers, x, numpy_weights(generator))
    with torch.no_grad():
        found = generator(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_state_dict_has_the_release_names_and_counts():
    spec = generator_spec("fc8")
    state = Generator(spec).state_dict()
    assert {name.split(".")[0] for name in state} == {layer.name for layer in spec.layers} - {"reshape"}
    assert sum(value.numel() for value in state.values()) == parameters(spec.layers)
    assert state["deconv5.weight"].shape == (256, 256, 4, 4)


def test_caffenet_equals_the_twin_at_every_layer():
    encoder = random_encoder(CAFFENET, "fc8", seed=2)
    photos = pink_noise(1, 227, seed=3)
    with torch.no_grad():
        found = encoder.features(to_image_space(photos), [layer.name for layer in encoder.layers])
    x, weights = CAFFE_PIXELS.to_network(photos.numpy()).astype(np.float64), numpy_weights(encoder)
    for layer in encoder.layers:
        x = reference.apply_layer(layer, x, weights)
        scale = np.abs(x).max()
        np.testing.assert_allclose(found[layer.name].numpy(), x, atol=2e-5 * scale, err_msg=layer.name)


def test_alexnet_equals_torchvisions(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.alexnet(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "alexnet.pth")
    encoder = load_encoder(ALEXNET, "fc8", tmp_path / "alexnet.pth")
    photos = pink_noise(2, 227, seed=1)
    normalised = torch.from_numpy(IMAGENET_PIXELS.to_network(photos.numpy()))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = (photos.permute(0, 3, 1, 2) / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(normalised, rgb, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        found = encoder.features(to_image_space(photos), ["pool5", "fc8"])
        torch.testing.assert_close(found["pool5"], model.features(rgb), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["fc8"], model(rgb), atol=1e-4, rtol=1e-4)


def test_random_encoder_is_seeded_and_normalised():
    first, again, other = (random_encoder(CAFFENET, "fc6", seed) for seed in (4, 4, 5))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    with torch.no_grad():
        linear = torch.nn.functional.conv2d(
            to_image_space(pink_noise(8, 227, seed=99)), first.conv1.weight, first.conv1.bias, stride=4
        )
        fc6 = first(to_image_space(pink_noise(8, 227, seed=99)))
    assert linear.std().item() == pytest.approx(1, abs=0.15)
    assert linear.mean((0, 2, 3)).abs().mean().item() < 0.35
    assert 0.2 < fc6.std().item() < 2


def test_encoder_weights_come_from_a_local_file(tmp_path):
    encoder = random_encoder(CAFFENET, "norm2", seed=1)
    write_weights(tmp_path / "caffenet.safetensors", encoder.state_dict())
    loaded = load_encoder(CAFFENET, "norm1", tmp_path / "caffenet.safetensors")
    torch.testing.assert_close(loaded.conv1.weight, encoder.conv1.weight, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_pixel_round_trip_and_convention():
    photos = pink_noise(2, 227, seed=0)
    images = to_image_space(photos)
    np.testing.assert_array_equal(images.numpy(), CAFFE_PIXELS.to_network(photos.numpy()))
    assert images[0, 0, 5, 7].item() == photos[0, 5, 7, 2].item() - 104  # channel 0 is blue
    assert torch.equal(to_pixels(images), photos)
    np.testing.assert_array_equal(CAFFE_PIXELS.to_pixels(images.numpy()), photos.numpy())
    extreme = to_pixels(torch.tensor([-1e4, 1e4]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert extreme.flatten().tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize(("side", "offset"), [(256, 14), (240, 6)])
def test_the_scored_part_is_central(side, offset):
    image = torch.arange(side * side).view(1, 1, side, side)
    cropped = scored(image, Geometry.central(CAFFE_FRAMING, side))
    assert cropped.shape == (1, 1, 227, 227)
    assert cropped[0, 0, 0, 0] == offset * side + offset


def test_initial_generator_neither_explodes_nor_saturates():
    for layer in ("norm2", "fc6"):
        generator = Generator(generator_spec(layer))
        initialise_generator(generator, torch.Generator().manual_seed(0))
        with torch.no_grad():
            image = generator(torch.randn(1, *generator.spec.input_shape).relu())
        assert 0.05 < image.std().item() < 60


def test_discriminator_extents_and_forms():
    unconditional, conditional = Discriminator(), Discriminator(4096)
    images = torch.zeros(2, 3, 227, 227)
    extents = []
    x = images
    for module in unconditional.convolutions[:10]:
        x = module(x)
        if isinstance(module, torch.nn.Conv2d):
            extents.append((x.shape[1], x.shape[2]))
    assert extents == [(32, 56), (64, 52), (128, 25), (256, 23), (256, 11)]
    assert unconditional(images).shape == conditional(images, torch.zeros(2, 4096)).shape == (2, 2)
    linear = [tuple(m.weight.shape) for m in conditional.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(1024, 4096), (512, 1024), (512, 768), (2, 512)]
    plain = [tuple(m.weight.shape) for m in unconditional.modules() if isinstance(m, torch.nn.Linear)]
    assert plain == [(256, 256), (2, 256)]
    with pytest.raises(ValueError, match="features missing"):
        conditional(images)


def test_discriminator_draws_fresh_dropout_masks():
    discriminator = Discriminator()
    initialise_discriminator(discriminator, torch.Generator().manual_seed(0))
    images = torch.randn(4, 3, 227, 227)
    with torch.no_grad():
        assert not torch.equal(discriminator(images), discriminator(images))


def test_encoder_computes_two_layers_in_one_pass():
    encoder = random_encoder(CAFFENET, "pool5", seed=0)
    image = to_image_space(pink_noise(1, 227, seed=0))
    with torch.no_grad():
        both = encoder.features(image, {"norm2", "pool5"})
        alone = Encoder(CAFFENET, "norm2")
        alone.load_state_dict({k: v for k, v in encoder.state_dict().items() if k.split(".")[0] in ("conv1", "conv2")})
        torch.testing.assert_close(both["norm2"], alone(image), rtol=0, atol=0)
        torch.testing.assert_close(both["pool5"], encoder(image), rtol=0, atol=0)


def test_an_even_start_makes_no_checkerboard():
    generator = Generator(generator_spec("norm2", width=1 / 16))
    constant = torch.ones(1, *generator.spec.input_shape)
    ripples = []
    for even in (False, True):
        initialise_generator(generator, torch.Generator().manual_seed(0), even)
        inside = generator(constant)[0, :, 112:128, 112:128].detach()  # far from the padding of every layer
        ripples.append(float(inside.std((1, 2)).max() / inside.abs().max()))
    assert ripples[0] > 0.01
    assert ripples[1] < 1e-5


def test_an_even_start_keeps_the_variance():
    generator = Generator(generator_spec("norm2", width=1 / 2))
    sizes = []
    for even in (False, True):
        initialise_generator(generator, torch.Generator().manual_seed(0), even)
        sizes.append([generator.get_submodule(name).weight.std().item() for name in ("deconv4", "deconv2", "conv4_1")])
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
