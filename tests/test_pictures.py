"""Pictures: whatever the format, one upright RGB image, or an error that names the file."""

import io
import os
import random
from pathlib import Path

import faults
import numpy as np
import pytest
from PIL import Image

from smellkit.checks import Report, read_picture, readable
from smellkit.errors import DataError


def save(path, image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    path.write_bytes(out.getvalue())
    return path


def plain(colour, mode="RGB", size=(40, 30)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("fault", faults.BROKEN_PICTURES)
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif", "gif", "bmp", "tiff"])
def test_a_broken_picture_is_refused_by_name(tmp_path, fault, form):
    for seed in range(4):
        chance = random.Random(seed)
        path = tmp_path / f"smell{seed}.{form}"
        path.write_bytes(faults.BROKEN_PICTURES[fault](faults.picture(chance, form=form), chance))
        with pytest.raises(DataError, match=str(path)):
            read_picture(path)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_every_format_becomes_rgb_whatever_its_suffix(tmp_path, form, suffix):
    report = Report()
    image = read_picture(save(tmp_path / f"smell.{suffix}", plain((200, 100, 50)), form), report=report)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    np.testing.assert_allclose(np.asarray(image)[15, 20], (200, 100, 50), atol=8)
    fits = (form, suffix) in {("jpeg", "jpg"), ("png", "png"), ("webp", "webp")}
    assert report.counts == ({} if fits else {f"is {form.upper()}, whatever its name says": 1})


def test_cmyk_palette_and_grey_become_rgb(tmp_path):
    cmyk = read_picture(save(tmp_path / "a.jpg", plain((0, 255, 255, 0), "CMYK"), "jpeg"))
    np.testing.assert_allclose(np.asarray(cmyk)[9, 9], (255, 0, 0), atol=8)
    palette = read_picture(save(tmp_path / "b.png", plain((0, 0, 255)).quantize(4), "png"))
    assert np.asarray(palette)[9, 9].tolist() == [0, 0, 255]
    grey = read_picture(save(tmp_path / "c.png", plain(77, "L"), "png"))
    assert np.asarray(grey)[9, 9].tolist() == [77, 77, 77]


def test_what_is_transparent_lies_on_white(tmp_path):
    colour = read_picture(save(tmp_path / "a.png", plain((255, 0, 0, 0), "RGBA"), "png"))
    half = read_picture(save(tmp_path / "b.png", plain((0, 128), "LA"), "png"))
    palette = read_picture(save(tmp_path / "c.gif", plain(0, "P"), "gif", transparency=0))
    assert np.asarray(colour)[9, 9].tolist() == [255, 255, 255]
    assert np.asarray(half)[9, 9].tolist() == [127, 127, 127]
    assert np.asarray(palette)[9, 9].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["png", "tiff"])
def test_a_mid_grey_of_16_bits_is_a_mid_grey(tmp_path, form):
    image = Image.fromarray(np.full((30, 40), 32768, np.uint16))
    assert np.asarray(read_picture(save(tmp_path / f"a.{form}", image, form)))[9, 9].tolist() == [128, 128, 128]


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(DataError, match="8 or 16 bits"):
        read_picture(save(tmp_path / "a.tiff", plain(0.5, "F"), "tiff"))


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_taken_and_counted(tmp_path, form):
    frames = [plain(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    path = save(tmp_path / f"a.{form}", frames[0], form, save_all=True, append_images=frames[1:])
    report = Report()
    np.testing.assert_allclose(np.asarray(read_picture(path, report=report))[9, 9], (255, 0, 0), atol=8)
    assert report.counts == {"first of 3 frames taken": 1}


def test_a_picture_taken_upright_stands_upright(tmp_path):
    image = plain((0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 40, 5))  # white along the top
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the top is right when shown
    turned = read_picture(save(tmp_path / "a.jpg", image, "jpeg", exif=exif, quality=95))
    assert turned.size == (30, 40)
    assert np.asarray(turned)[20, 28].mean() > 200
    assert np.asarray(turned)[20, 2].mean() < 50


def test_25_megapixels_are_read_and_more_is_refused_from_the_header(tmp_path):
    assert read_picture(save(tmp_path / "a.png", Image.new("1", (5000, 5000)), "png")).size == (5000, 5000)
    for side in faults.BOMBS:
        (tmp_path / "bomb.png").write_bytes(faults.bomb(side)[:100])  # its header is enough
        with pytest.raises(DataError, match="25 megapixels"):
            read_picture(tmp_path / "bomb.png")
        assert side > 5000


def test_no_picture_format_that_runs_another_program_is_read(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(DataError, match="expected a picture"):
        read_picture(tmp_path / "a.eps")


def test_others_are_read_when_broken_ones_are_to_be_skipped(tmp_path):
    for number in range(12):
        chance = random.Random(number)
        data = faults.picture(chance, form="jpeg")
        (tmp_path / f"{number:02d}.jpg").write_bytes(data[: len(data) // 2] if number % 3 == 0 else data)
    report = Report()
    good = list(readable(sorted(tmp_path.glob("*.jpg")), read_picture, skip=True, report=report))
    assert (len(good), len(report.skipped)) == (8, 4)


def test_real_pictures_are_read_two_of_them_with_the_wrong_suffix():
    folder = Path(os.environ.get("SMELLKIT_DATA", "")) / "smellnet/images"
    if not folder.is_dir():
        pytest.skip("set SMELLKIT_DATA to the folder that holds smellnet/ to test on real pictures")
    names = ["cloves/cloves03.jpg", "apple/apple.jpeg", "apple/apple02.avif", "cloves/OIP.webp", "cloves/cloves.jpeg"]
    report = Report()
    assert all(read_picture(folder / name, report=report).mode == "RGB" for name in names)
    assert report.counts == {"is WEBP, whatever its name says": 2}
