"""Every kind of image and of broken image, by the policy `pil-rgb8@1`."""

import contextlib
import io
import os
import pickle
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from featcache.datasets.decode import DECODE_POLICY, MAX_PIXELS, decode
from featcache.errors import UnreadableImageError
from featcache.spec import TransformSpec
from tests.datasets.pictures import chunk, encoded, noise, png, smooth

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation to how the upright image is stored under it."""


def pixels(data: bytes | str | Path) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def test_the_policy_is_the_one_that_a_transform_names_by_default():
    assert TransformSpec(resize=1).decode == DECODE_POLICY


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm", "webp", "jpeg2000", "gif"])
def test_rgb_pixels_come_back_exactly_from_lossless_formats(kind):
    original = noise(9, 7, 3) if kind != "gif" else np.full((9, 7, 3), (10, 20, 30), np.uint8)
    options = {"lossless": True} if kind == "webp" else {}
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(original), kind, **options)), original
    )


def test_a_jpeg_is_decoded_as_pil_does():
    data = encoded(smooth(), "jpeg", quality=90)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_bytes_a_string_and_a_path_give_the_same_image(tmp_path):
    data = encoded(smooth(), "png")
    path = tmp_path / "ünï cøde.png"
    path.write_bytes(data)
    for source in (path, str(path)):
        np.testing.assert_array_equal(pixels(source), pixels(data))


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_image_with_exif_equals_the_upright_one(kind, orientation):
    upright, turn = smooth(24, 16), TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
    options |= {"lossless": True} if kind == "webp" else {}
    stored = upright if turn is None else upright.transpose(turn)
    got = decode(encoded(stored, kind, exif=exif, **options))
    assert got.size == upright.size
    assert np.abs(np.asarray(got, int) - np.asarray(upright)).max() <= (4 if kind == "jpeg" else 0)
    assert got.getexif().get(0x0112, 1) == 1


def test_the_result_carries_no_metadata_that_could_turn_it_again():
    exif = Image.Exif()
    exif[0x0112] = 3
    assert decode(encoded(smooth(), "jpeg", exif=exif, icc_profile=b"junk")).info == {}


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"junk"],
)
def test_broken_exif_counts_as_upright(exif):
    data = encoded(smooth(), "jpeg", exif=exif)
    np.testing.assert_array_equal(pixels(data), pixels(encoded(smooth(), "jpeg")))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_out_of_range_counts_as_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encoded(smooth(), "png", exif=exif)), np.asarray(smooth()))


def test_an_orientation_that_is_text_counts_as_upright():
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI4s", 0x0112, 2, 3, b"up\0\0") + b"\0" * 4
    data = encoded(smooth(), "jpeg", exif=b"Exif\0\0" + tiff)
    assert decode(data).size == (24, 16)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_broken_colour_profile_is_of_no_account(kind):
    data = encoded(smooth(), kind, icc_profile=b"not a profile")
    np.testing.assert_array_equal(pixels(data), pixels(encoded(smooth(), kind)))


def test_cmyk_jpeg_becomes_rgb_within_tolerance():
    cmyk = smooth().convert("CMYK")
    got = pixels(encoded(cmyk, "jpeg", quality=100, subsampling=0)).astype(int)
    assert np.abs(got - np.asarray(smooth())).max() <= 6


def test_adobe_inverted_cmyk_jpeg_is_not_a_negative():
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    data = encoded(white, "jpeg", quality=100)
    assert b"Adobe" in data
    assert pixels(data).min() >= 250


def test_cmyk_tiff_becomes_rgb():
    data = encoded(Image.new("CMYK", (3, 2), (255, 0, 0, 0)), "tiff")
    np.testing.assert_array_equal(pixels(data), np.full((2, 3, 3), (0, 255, 255), np.uint8))


def test_a_palette_is_expanded():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "L").convert("P")
    image.putpalette(noise(256 * 3).tobytes())
    np.testing.assert_array_equal(pixels(encoded(image, "png")), np.asarray(image.convert("RGB")))


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 750)
    image.putpixel((2, 1), 0)
    want = np.full((3, 4, 3), (0, 0, 255), np.uint8)
    want[1, 2] = 255
    np.testing.assert_array_equal(pixels(encoded(image, "png", transparency=0)), want)
    np.testing.assert_array_equal(pixels(encoded(image, "gif", transparency=0)), want)


def test_a_half_transparent_palette_entry_is_mixed_with_white_and_gives_no_warning():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0] * 256)
    got = pixels(encoded(image, "png", transparency=bytes([128])))
    np.testing.assert_array_equal(got, np.full((2, 2, 3), 127, np.uint8))


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[True, False], [False, True]]))
    want = grey(np.array([[255, 0], [0, 255]], np.uint8))
    for kind in ("png", "tiff", "ppm", "bmp"):
        np.testing.assert_array_equal(pixels(encoded(image, kind)), want)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm", "bmp"])
def test_grey_is_repeated_in_all_channels(kind):
    original = noise(5, 6)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(original), kind)), grey(original))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_over_white(mode):
    colour = (100, 128) if mode == "LA" else (100, 0, 200, 128)
    image = Image.new(mode, (2, 2), colour)
    image.putpixel((0, 0), (*colour[:-1], 0))
    image.putpixel((1, 1), (*colour[:-1], 255))
    solid = np.array(colour[:-1] * (3 if mode == "LA" else 1))
    got = pixels(encoded(image, "png"))
    np.testing.assert_array_equal(got[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(got[1, 1], solid)
    np.testing.assert_allclose(got[0, 1], 255 - (255 - solid) * 128 / 255, atol=1)


def test_a_transparent_colour_of_grey_and_rgb_png_becomes_white():
    levels = np.array([[7, 8]], np.uint8)
    data = encoded(Image.fromarray(levels), "png", transparency=7)
    np.testing.assert_array_equal(pixels(data), grey(np.array([[255, 8]], np.uint8)))
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    data = encoded(Image.fromarray(rgb), "png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(pixels(data), [[[255, 255, 255], [4, 5, 6]]])


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bit_grey_is_scaled_by_value(kind):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    got = pixels(encoded(Image.fromarray(levels), kind))
    np.testing.assert_array_equal(got, grey((levels >> 8).astype(np.uint8)))
    assert (got.min(), got.max()) == (0, 255)


def test_big_endian_sixteen_bit_tiff_is_scaled_by_value():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0x1234, 0xFFFF))
    np.testing.assert_array_equal(pixels(encoded(image, "tiff"))[0, :, 0], [0x12, 0xFF])


def test_sixteen_bit_grey_png_with_a_transparent_level_becomes_white_there_alone():
    rows = b"\0" + struct.pack(">HH", 0x1234, 0x1235)
    data = png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 0x1234)))
    np.testing.assert_array_equal(pixels(data)[0, :, 0], [255, 0x12])


def test_sixteen_bit_rgb_png_keeps_the_high_bytes_as_sixteen_bit_grey_does():
    levels = (0, 0x1234, 0xFFFF)
    data = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", *levels))
    np.testing.assert_array_equal(pixels(data), [[[level >> 8 for level in levels]]])


def test_sixteen_bit_rgb_png_with_a_transparent_colour_becomes_white():
    rows = b"\0" + struct.pack(">HHHHHH", 0x1111, 0x2222, 0x3333, 0xFFFF, 0, 0)
    data = png(2, 1, 16, 2, rows, chunk(b"tRNS", struct.pack(">HHH", 0x1111, 0x2222, 0x3333)))
    np.testing.assert_array_equal(pixels(data), [[[255, 255, 255], [255, 0, 0]]])


def test_integers_beyond_sixteen_bit_are_refused():
    image = Image.fromarray(np.array([[0, 70_000]], np.int32))
    with pytest.raises(UnreadableImageError, match=r"32-bit pixels lie outside 0\.\.65535"):
        decode(encoded(image, "tiff"))


def test_float_pixels_are_refused():
    with pytest.raises(UnreadableImageError, match="float pixels have no defined range"):
        decode(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "tiff"))


def test_lab_pixels_are_refused():
    with pytest.raises(UnreadableImageError, match="LAB pixels are not supported"):
        decode(encoded(Image.new("LAB", (2, 2)), "tiff"))


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "webp" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(data), np.asarray(frames[0]))


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "tiff", "avif"])
def test_the_result_outlives_its_file_and_can_be_pickled(kind, tmp_path):
    if kind.upper() not in Image.registered_extensions().values():
        pytest.skip(f"PIL was built without {kind}")
    path = tmp_path / "image"
    path.write_bytes(encoded(smooth(), kind))
    image = decode(path)
    path.unlink()
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
    assert image.resize((4, 4)).size == (4, 4)


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "webp", "tiff"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_cut_file_is_unreadable_and_says_so(kind, share):
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    with pytest.raises(UnreadableImageError, match=r"^(truncated|broken|not an image)"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_file_cut_in_its_pixels_is_called_truncated(kind):
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    with pytest.raises(UnreadableImageError, match=r"^truncated: "):
        decode(data[: len(data) // 2])


def test_no_bit_flip_raises_anything_but_unreadable():
    rng = np.random.default_rng(0)
    for kind in ("jpeg", "png", "gif", "webp", "tiff", "bmp", "ppm"):
        data = np.frombuffer(encoded(smooth(), kind), np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[rng.integers(0, min(len(data), 200), 4)] = rng.integers(0, 256, 4)
            with contextlib.suppress(UnreadableImageError):
                assert decode(broken.tobytes()).mode == "RGB"


@pytest.mark.parametrize("data", [b"hello, this is text", bytes(100), noise(300).tobytes()])
def test_other_bytes_are_not_an_image(data):
    with pytest.raises(UnreadableImageError, match="^not an image$"):
        decode(data)


def test_postscript_is_not_handed_to_another_program():
    with pytest.raises(UnreadableImageError, match="^not an image$"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_heic_is_named():
    with pytest.raises(UnreadableImageError, match="HEIC is not supported; convert to JPEG"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))


def test_files_that_cannot_be_read_give_a_reason_without_a_path(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        tmp_path / "empty.png": "empty file",
        tmp_path / "missing.png": "no such file",
        tmp_path: "is a directory",
        tmp_path / "pipe.png": "not a regular file",
        tmp_path / "loop.png": "cannot be read: too many levels of symbolic links",
        tmp_path / ("x" * 300): "cannot be read: file name too long",
    }
    for path, reason in cases.items():
        with pytest.raises(UnreadableImageError) as raised:
            decode(path)
        assert str(raised.value) == reason
    with pytest.raises(UnreadableImageError, match="^not a valid path$"):
        decode("a\0b")
    with pytest.raises(UnreadableImageError, match="^empty file$"):
        decode(b"")


def test_no_permission_gives_a_reason(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(smooth(), "png"))

    def refuse(*_args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("featcache.datasets.decode.open", refuse, raising=False)
    with pytest.raises(UnreadableImageError, match="^permission denied$"):
        decode(path)


def test_not_enough_memory_gives_a_reason(monkeypatch):
    def full(*_args):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(UnreadableImageError, match="^too large for the memory$"):
        decode(encoded(smooth(), "bmp"))


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(
        UnreadableImageError, match=f"^decompression bomb: 400000000 pixels > {MAX_PIXELS}$"
    ):
        decode(png(20_000, 20_000, 1, 0, b""))


def test_the_limit_holds_when_pils_own_is_switched_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UnreadableImageError, match="decompression bomb: 400000000 pixels"):
        decode(png(20_000, 20_000, 1, 0, b""))


def test_an_image_above_pils_warning_is_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert decode(encoded(smooth(24, 16), "png")).size == (24, 16)


def test_the_callers_warning_filters_stand_after_many_threads_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    data, before = encoded(smooth(), "png"), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: decode(data).size, range(200)))
    assert set(sizes) == {(24, 16)}
    assert warnings.filters == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
