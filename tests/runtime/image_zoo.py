"""Image files good and bad, written from scratch, and seeds for the decoder's fuzzing."""

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

# 24 high, 40 wide: red and green above, blue and grey below.
BASE = np.zeros((24, 40, 3), np.uint8)
BASE[:12, :20], BASE[:12, 20:], BASE[12:, :20], BASE[12:, 20:] = (200, 0, 0), (0, 180, 0), (0, 0, 160), (90, 90, 90)
GREY = np.round(BASE @ [0.299, 0.587, 0.114]).astype(np.uint8)
RAMP = (np.arange(24 * 40).reshape(24, 40) * 68).astype(np.uint16)  # 0..65212

UPRIGHT = {  # EXIF orientation -> what makes the stored array upright, in numpy's words
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


def encode(image, kind="PNG", **options):
    """Return an encoded file's bytes."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def exif(orientation):
    """Return an EXIF block with the given orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def exif_that_cannot_be_written(orientation):
    """Return an EXIF block that can be read, but not be written again: its unit of resolution is a text."""
    entries = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, orientation, 0) + struct.pack("<HHI4s", 0x0128, 2, 4, b"cm\0\0")
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + struct.pack("<I", 0)


def png(width, height, depth, colour, rows=b"", extra=b""):
    """Write a PNG chunk by chunk, as Pillow cannot write every kind."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(name, data):
    """Return one PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def paletted(**options):
    """Return a palette PNG of the four colours."""
    return encode(Image.fromarray(BASE).quantize(4), **options)


def palette_with_hole():
    """Return a palette PNG whose blue is transparent, and the pixels expected."""
    image = Image.fromarray(BASE).quantize(4)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[12:, :20] = 255
    return encode(image, transparency=image.getpixel((0, 20))), expected


def rgb_16_bit():
    """Return a 16-bit RGB PNG of BASE."""
    wide = (BASE.astype(np.uint16) * 257).astype(">u2")
    return png(40, 24, 16, 2, b"".join(b"\0" + row.tobytes() for row in wide))


def with_alpha(alpha):
    """Return BASE as RGBA with one alpha everywhere, and BASE composited on white."""
    rgba = np.dstack([BASE, np.full(BASE.shape[:2], alpha, np.uint8)])
    return rgba, np.round(BASE * (alpha / 255) + 255 * (1 - alpha / 255))


def animation(kind, **options):
    """Return an animated file whose first frame is BASE, the second black."""
    frames = [Image.fromarray(np.zeros_like(BASE))]
    return encode(BASE, kind, save_all=True, append_images=frames, **options)


def three(grey):
    """Return a grey image as RGB."""
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def good():
    """List (name, file content, expected pixels, tolerance in grey levels)."""
    rgba, composited = with_alpha(102)
    invisible = np.full_like(BASE, 255)
    holed, holed_pixels = palette_with_hole()
    one_bit = Image.fromarray(GREY > 60)
    sixteen = np.round(RAMP / 257.0)
    keyed = np.where(RAMP == 68 * 7, 255, sixteen)
    keyed_rgb = np.where((BASE == (0, 180, 0)).all(-1, keepdims=True), 255, BASE)
    cmyk = Image.fromarray(BASE).convert("CMYK")
    cases = [
        ("rgb.png", encode(BASE), BASE, 0),
        ("grey.png", encode(GREY), three(GREY), 0),
        ("one-bit.png", encode(one_bit), three((GREY > 60) * 255), 0),
        ("palette.png", paletted(), BASE, 3),
        ("palette-2-bit.png", paletted(bits=2), BASE, 3),
        ("palette-transparent.png", holed, holed_pixels, 0),
        ("rgba.png", encode(rgba), composited, 1),
        ("invisible.png", encode(with_alpha(0)[0]), invisible, 0),
        ("grey-alpha.png", encode(Image.fromarray(rgba).convert("LA")), np.round(three(GREY) * 0.4 + 153), 1),
        ("rgb-key.png", encode(BASE, transparency=(0, 180, 0)), keyed_rgb, 0),
        ("grey-16.png", encode(RAMP), three(sixteen), 0),
        ("grey-16-key.png", encode(RAMP, transparency=68 * 7), three(keyed), 0),
        ("rgb-16.png", rgb_16_bit(), BASE, 0),
        ("animated.png", animation("PNG"), BASE, 0),
        ("png-named.jpg", encode(BASE), BASE, 0),
        ("NAME.PNG", encode(BASE), BASE, 0),
        ("grüße 写真.png", encode(BASE), BASE, 0),
        ("no-suffix", encode(BASE), BASE, 0),
        ("one-pixel.png", encode(BASE[:1, :1]), BASE[:1, :1], 0),
        ("thin.png", encode(np.repeat(BASE[:1], 3000, axis=0)), np.repeat(BASE[:1], 3000, axis=0), 0),
        ("exif-garbage.png", encode(BASE, exif=b"Exif\0\0not a tiff"), BASE, 0),
        ("exif-9.png", encode(BASE, exif=exif(9)), BASE, 0),
        ("exif-6-unwritable.png", encode(np.rot90(BASE), exif=exif_that_cannot_be_written(6)), BASE, 0),
        ("rgb.jpg", encode(BASE, "JPEG", quality=98, subsampling=0), BASE, 9),
        ("progressive.jpg", encode(BASE, "JPEG", quality=98, subsampling=0, progressive=True), BASE, 9),
        ("grey.jpg", encode(GREY, "JPEG", quality=98), three(GREY), 9),
        ("cmyk.jpg", encode(cmyk, "JPEG", quality=98, subsampling=0), BASE, 12),
        ("exif-6.jpg", encode(np.rot90(BASE), "JPEG", quality=98, subsampling=0, exif=exif(6)), BASE, 9),
        ("lossless.webp", encode(BASE, "WEBP", lossless=True), BASE, 0),
        ("lossy.webp", encode(three(GREY), "WEBP", quality=100), three(GREY), 9),
        ("alpha.webp", encode(rgba, "WEBP", lossless=True), composited, 1),
        ("animated.webp", animation("WEBP", lossless=True), BASE, 0),
        ("exif-3.webp", encode(np.rot90(BASE, 2), "WEBP", lossless=True, exif=exif(3)), BASE, 0),
    ]
    for orientation, upright in UPRIGHT.items():
        cases.append((f"exif-{orientation}.png", encode(BASE, exif=exif(orientation)), upright(BASE), 0))
    return cases


def bad():
    """List (name, file content, a word of the message)."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    jpeg, whole, webp = encode(noise, "JPEG"), encode(noise), encode(noise, "WEBP", lossless=True)
    progressive = encode(noise, "JPEG", progressive=True)
    huge_jpeg = jpeg.replace(b"\x00\x5a\x00\x78", b"\xff\xff\xff\xff")  # height and width in the frame header
    bomb_text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * (2 << 20)))
    row = b"\0" + b"\1\2\3" * 4
    return [
        ("empty.jpg", b"", "not an image"),
        ("text.jpg", b"this is a text, not a photograph\n" * 50, "not an image"),
        ("page.png", b"<!DOCTYPE html><title>404</title>", "a web page"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        ("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("grey-13.tif", tiff(bytes(2000), 13), "a TIFF of a kind"),
        ("noise.webp", random.Random(0).randbytes(5000), "not an image"),
        ("icon.png", encode(BASE, "ICO"), "not an image"),
        ("sgi.jpg", encode(BASE, "SGI"), "not an image"),
        ("truncated.gif", encode(noise, "GIF")[:500], ""),
        ("truncated.tif", encode(noise, "TIFF")[:500], ""),
        ("truncated.avif", encode(noise, "AVIF")[:500], ""),
        ("truncated.bmp", encode(noise, "BMP")[:500], "truncated"),
        ("float.tif", encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "no defined range"),
        ("jpeg2000.jpg", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
        ("truncated.jpg", jpeg[: len(jpeg) // 2], "truncated"),
        ("truncated-progressive.jpg", progressive[: len(progressive) // 2], "truncated"),
        ("header-only.jpg", jpeg[:20], ""),
        ("magic-only.jpg", jpeg[:3], ""),
        ("truncated.png", whole[: len(whole) // 2], ""),
        ("header-only.png", whole[:33], ""),
        ("magic-only.png", whole[:8], ""),
        ("truncated.webp", webp[: len(webp) // 2], ""),
        ("magic-only.webp", webp[:12], ""),
        ("huge.jpg", huge_jpeg, "4294836225"),
        ("bomb.png", png(65_000, 65_000, 8, 2), "4225000000"),
        ("large.png", png(12_000, 12_000, 8, 2), "12000 x 12000 pixels"),
        ("no-pixels.png", png(0, 10, 8, 2), ""),
        ("bad-depth.png", png(4, 1, 7, 2, row), ""),
        ("bad-checksum.png", png(4, 1, 8, 2, row).replace(b"IHDR\0\0\0\4", b"IHDR\0\0\0\5"), ""),
        ("no-zlib.png", png(4, 1, 8, 2, row).replace(zlib.compress(row)[:2], b"\0\0"), ""),
        ("text-bomb-truncated.png", png(4, 1, 8, 2, row, bomb_text)[:-30], ""),
    ]


def profiles():
    """List PNG files (name, content, expected pixels, tolerance) with metadata that Pillow refuses as too large."""
    rows = b"".join(b"\0" + row.tobytes() for row in BASE)
    large = zlib.compress(bytes(3 << 20))
    profile, text = chunk(b"iCCP", b"scanner\0\0" + large), chunk(b"zTXt", b"k\0\0" + large)
    behind = png(40, 24, 8, 2, rows)
    behind = behind[:-12] + text + behind[-12:]
    return [
        ("large-profile.png", png(40, 24, 8, 2, rows, profile), BASE, 0),
        ("damaged-text.png", png(40, 24, 8, 2, rows, chunk(b"tEXt", b"k\0text")[:-1] + b"\0"), BASE, 0),
        ("large-text.png", png(40, 24, 8, 2, rows, text), BASE, 0),
        ("large-text-behind.png", behind, BASE, 0),
        ("profile-and-exif.png", png(40, 24, 8, 2, rows, profile + chunk(b"eXIf", exif(3)[6:])), np.rot90(BASE, 2), 0),
    ]


def scans():
    """List files (name, content, expected pixels, tolerance) as scanners and microscopes write them."""
    twelve = (RAMP >> 4).astype(np.uint16)  # 0..4075
    grey = three(np.round(RAMP / 257.0))
    rows = b"".join(b"\0" + row.tobytes() for row in BASE)
    damaged = chunk(b"iCCP", b"scanner\0\0not deflated")
    pages = encode(BASE, "TIFF", save_all=True, append_images=[Image.fromarray(np.zeros_like(BASE))])
    return [
        ("rgb.tif", encode(BASE, "TIFF"), BASE, 0),
        ("lzw.tiff", encode(BASE, "TIFF", compression="tiff_lzw"), BASE, 0),
        ("grey-16.tif", encode(RAMP, "TIFF"), grey, 0),
        ("grey-12.tif", tiff(packed_12_bit(twelve), 12), three(np.round(twelve / 4095 * 255)), 1),
        ("cmyk.tif", encode(Image.fromarray(BASE).convert("CMYK"), "TIFF"), BASE, 2),
        ("pages.tif", pages, BASE, 0),
        ("turned.tif", encode(np.rot90(BASE), "TIFF", exif=exif(6)), BASE, 0),
        ("white-is-zero.tif", encode(Image.fromarray(GREY), "TIFF", tiffinfo={262: 0}), three(GREY), 0),
        ("white-is-zero-16.tif", tiff((65535 - RAMP).astype("<u2").tobytes(), 16, white=0), grey, 0),
        ("damaged-profile.png", png(40, 24, 8, 2, rows, damaged), BASE, 0),
        ("profile.jpg", encode(BASE, "JPEG", quality=98, subsampling=0, icc_profile=bytes(3 << 20)), BASE, 9),
        ("profile.tif", encode(BASE, "TIFF", icc_profile=bytes(3 << 20)), BASE, 0),
        ("grey-16.pgm", b"P5 40 24 65535\n" + RAMP.astype(">u2").tobytes(), grey, 0),
        ("grey-10.pgm", b"P5 40 24 1023\n" + (RAMP >> 6).astype(">u2").tobytes(), three((RAMP >> 6) / 1023 * 255), 1),
        ("rgb.bmp", encode(BASE, "BMP"), BASE, 0),
        ("still.gif", encode(Image.fromarray(BASE).quantize(4), "GIF"), BASE, 3),
        ("animated.gif", animation("GIF"), BASE, 3),
        ("rgb.avif", encode(BASE, "AVIF", quality=100, subsampling="4:4:4"), BASE, 3),
        ("gif-named.jpg", encode(Image.fromarray(BASE).quantize(4), "GIF"), BASE, 3),
    ]


def packed_12_bit(values):
    """Return 12-bit values, an even number in a row, two in three bytes."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    parts = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    return np.stack(parts, axis=-1).astype(np.uint8).tobytes()


def tiff(samples, bits, white=1):
    """Return a greyscale TIFF of 24 x 40 samples, of kinds that Pillow reads but does not write; 0 may be white."""
    tags = {256: 40, 257: 24, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: 24, 279: len(samples)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + directory


def seeds():
    """Return small valid files to mutate, with metadata so that its parsers run as well."""
    text = PngImagePlugin.PngInfo()
    text.add_text("key", "value " * 20, zip=True)
    animated = animation("PNG")
    return [
        encode(BASE, "JPEG", exif=exif(6)),
        encode(BASE, "JPEG", progressive=True),
        encode(BASE, exif=exif(5), pnginfo=text),
        encode(RAMP),
        paletted(transparency=1),
        animated,
        encode(with_alpha(9)[0], "WEBP", lossless=True, exif=exif(8)),
        encode(BASE, "WEBP"),
        animation("WEBP"),
        encode(BASE, "GIF"),
        encode(BASE, "AVIF"),
        encode(BASE, "BMP"),
        encode(RAMP, "TIFF"),
        encode(BASE, "TIFF", compression="tiff_lzw", exif=exif(6)),
        b"P6 40 24 255\n" + BASE.tobytes(),
    ]


def mended(content):
    """Make the checksums of PNG chunks right again, so that mutations reach what lies behind them."""
    if content[:4] != b"\x89PNG":
        return content
    result, place = content[:8], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if place + 12 + length > len(content):
            break
        result += chunk(content[place + 4 : place + 8], content[place + 8 : place + 8 + length])
        place += 12 + length
    return result + content[place:]
