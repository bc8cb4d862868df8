"""CINIC-10: folders of PNG images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import png_bytes, write_cinic
from PIL import Image

from nnopt.data import cinic10
from nnopt.data.published import CINIC10
from nnopt.data.source import Decoded
from nnopt.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
HERE = Path("image.png")


def decode(root: Path) -> Decoded:
    return cinic10.locate(CINIC10, root).decode()


def test_images_get_the_class_of_their_folder(tmp_path: Path) -> None:
    arrays = write_cinic(tmp_path)
    decoded = decode(tmp_path)
    assert decoded.classes == CINIC10.classes
    for part, expected in arrays.items():
        images, labels = decoded.parts[part]
        assert images.shape == (20, 3, 32, 32)
        assert np.array_equal(images, expected.transpose(0, 3, 1, 2))
        assert labels.tolist() == np.repeat(np.arange(10), 2).tolist()
    assert decoded.notes[0] == "CINIC-10/train has 20 images, published 90,000"
    pixels = arrays["train"].reshape(-1, 3)
    assert decoded.mean == pytest.approx(pixels.mean(axis=0), rel=1e-14)
    assert decoded.std == pytest.approx(pixels.std(axis=0), rel=1e-12)


def test_decoding_with_two_processes_equals_decoding_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cinic(tmp_path)
    one = decode(tmp_path)
    monkeypatch.setattr(cinic10, "MIN_POOL_IMAGES", 1)
    monkeypatch.setattr(cinic10, "IMAGES_PER_TASK", 1)
    two = decode(tmp_path)
    assert one.sources == two.sources
    assert all(np.array_equal(one.parts[p][0], two.parts[p][0]) for p in CINIC10.parts)


def test_hash_of_the_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    first = decode(tmp_path).sources
    folder = tmp_path / "CINIC-10/valid/cat"
    name = sorted(os.listdir(folder))[0]
    (folder / name).rename(folder / "another.png")
    second = decode(tmp_path).sources
    (folder / "another.png").write_bytes(png_bytes(PIXELS))
    assert len({str(sources) for sources in (first, second, decode(tmp_path).sources)}) == 3


def test_hidden_files_are_skipped_and_counted(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    for name in ("train/.DS_Store", "train/cat/Thumbs.db", "test/dog/._x.png"):
        (tmp_path / "CINIC-10" / name).write_bytes(b"?")
    decoded = decode(tmp_path)
    assert len(decoded.parts["train"][0]) == 20
    assert decoded.notes[-1].startswith("CINIC-10: 3 hidden file(s)")


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_wrong_class_folders_are_refused(tmp_path: Path, part: str) -> None:
    write_cinic(tmp_path, each=1)
    folder = tmp_path / "CINIC-10" / part
    (folder / "zebra").mkdir()
    with pytest.raises(DataError, match=f"{part}/zebra is not a class"):
        decode(tmp_path)
    (folder / "zebra").rmdir()
    for file in (folder / "ship").iterdir():
        file.unlink()
    (folder / "ship").rmdir()
    with pytest.raises(DataError, match=f"{part} lacks the class folder.* ship"):
        decode(tmp_path)


def test_missing_or_empty_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CINIC-10/train not found.*datashare.*fetch cinic10"):
        cinic10.locate(CINIC10, tmp_path)
    for part in CINIC10.parts:
        for name in CINIC10.classes:
            (tmp_path / "CINIC-10" / part / name).mkdir(parents=True)
    with pytest.raises(DataError, match="has no images"):
        decode(tmp_path)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    return file.getvalue()


def deep() -> bytes:
    return png_bytes(np.zeros((32, 32), np.uint16))


def claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header has a false size and a valid CRC."""
    import struct
    import zlib

    content = bytearray(png_bytes(PIXELS))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a PNG: it begins with nothing"),
        (jpeg(), "is not a PNG: it begins with ff d8"),
        (png_bytes(PIXELS[:31]), "is 32x31 pixels, expected 32x32"),
        (claiming(100_000, 200_000), "is 100000x200000 pixels"),
        (png_bytes(PIXELS)[:-1], "truncated"),
        (png_bytes(PIXELS) + b"\n", "bytes after its end"),
        (deep(), "16 bits per channel"),
    ],
)
def test_error_about_bad_image_mentions_its_file_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    write_cinic(tmp_path, each=1)
    path = tmp_path / "CINIC-10/test/frog/image-006.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"image-006\.png.*{message}"):
        decode(tmp_path)


def test_truncations_and_flipped_bits_of_a_png_are_found() -> None:
    content = png_bytes(PIXELS)
    for end in range(len(content)):
        assert cinic10.png_problem(content[:end]), end
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 4
        assert cinic10.png_problem(bytes(damaged)), position
    assert cinic10.png_problem(content) is None


def test_gray_images_and_images_with_palette_or_transparency_become_rgb() -> None:
    gray = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.array_equal(cinic10.decode_png(png_bytes(gray), HERE), np.stack([gray] * 3, axis=2))
    opaque = np.concatenate([PIXELS, np.full((32, 32, 1), 7, np.uint8)], axis=2)
    assert np.array_equal(cinic10.decode_png(png_bytes(opaque), HERE), PIXELS)
    few = (PIXELS // 128) * 128
    palette = png_bytes(few, mode="P", transparency=b"\x05" * 16)
    expected = np.asarray(Image.fromarray(few).convert("P").convert("RGB"))
    assert np.array_equal(cinic10.decode_png(palette, HERE), expected)


def test_error_about_entry_that_is_not_an_image_mentions_its_name(tmp_path: Path) -> None:
    write_cinic(tmp_path, each=1)
    folder = tmp_path / "CINIC-10/train/deer"
    (folder / "notes.txt").write_text("?")
    with pytest.raises(DataError, match=r"notes\.txt is no \.png"):
        decode(tmp_path)
    (folder / "notes.txt").unlink()
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is a named pipe"):
        decode(tmp_path)


def test_fingerprint_depends_on_the_files(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    source = cinic10.locate(CINIC10, tmp_path)
    seen = [source.fingerprint(), source.fingerprint()]
    path = next((tmp_path / "CINIC-10/train/cat").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    seen.append(source.fingerprint())
    path.unlink()
    seen.append(source.fingerprint())
    path.write_bytes(png_bytes(PIXELS))
    seen.append(source.fingerprint())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png(*chunks: bytes, kind: int = 2, depth: int = 8, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", 32, 32, depth, kind, 0, 0, interlaced)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(chunks) + chunk(b"IEND", b"")


ROWS = (b"\0" + bytes(96)) * 32
ZEROS = chunk(b"IDAT", zlib.compress(ROWS))
INDICES = chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(32))) * 32))
GIANT = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
HOSTILE = {
    "second header": (png(GIANT, ZEROS), "a second header at byte 33"),
    "animated": (png(chunk(b"acTL", bytes(8)), ZEROS), "an animated PNG"),
    "palette absent": (png(INDICES, kind=3), "without a palette"),
    "palette too short": (png(chunk(b"PLTE", bytes(3)), INDICES, kind=3), "outside of the palette"),
    "unknown critical chunk": (png(chunk(b"AB\x1bD", b""), ZEROS), "'AB.x1bD', which is not part"),
    "16 bit gray": (png(ZEROS, kind=0, depth=16), "has 16 bits per channel"),
    "pixels cut short": (png(chunk(b"IDAT", zlib.compress(ROWS[:500]))), "truncated"),
    "no pixels": (png(), "damaged PNG"),
    "text bomb": (png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))), ZEROS), "too large"),
    "impossible colour type": (png(ZEROS, kind=9), "cannot identify image file$"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_png_image_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        cinic10.decode_png(content, tmp_path / "bad.png")
    assert str(tmp_path / "bad.png") in str(caught.value)


def test_interlaced_png_image_is_read(tmp_path: Path) -> None:
    assert cinic10.decode_png(
        png(chunk(b"IDAT", zlib.compress(bytes(4000))), interlaced=1), tmp_path
    ).shape
