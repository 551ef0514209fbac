"""Readers for packs of real data. benchmarks/README.md describes their contents and origin."""

import io
import lzma
import pathlib

import numpy as np


def speech(folder, source=None, part=None):
    """Reads keyword clips as MFCC.

    Args:
        folder: Path of the folder with `speech_mfcc.npz`.
        source, part: Strings (or lists, for `part`) that select clips.

    Returns:
        Tuple of float32 (clips, 49, 10, 1) and int64 labels (clips,).
    """
    data = np.load(pathlib.Path(folder, "speech_mfcc.npz"))
    chosen = np.ones(len(data["label"]), bool)
    if source:
        chosen &= data["source"] == source
    if part:
        chosen &= np.isin(data["part"], [part] if isinstance(part, str) else part)
    return data["mfcc"][chosen][..., None], data["label"][chosen].astype("int64")


def images(path, split=None, size=None):
    """Reads images that are stored as JPEG in one array.

    Args:
        path: Path of the `.npz` file.
        split: Integer. 0 is training, 1 validation, 2 test; `None` for all.
        size: Integer. Crops the center square and scales it, for images of several sizes.

    Returns:
        Tuple of uint8 (images, height, width, 3) and int64 labels (images,).
    """
    from PIL import Image

    data = np.load(path)
    blob, offsets = data["blob"], data["off"]
    everything = np.arange(len(data["label"]))
    chosen = everything if split is None else np.flatnonzero(data["split"] == split)
    pictures = []
    for i in chosen:
        jpeg = io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())
        picture = Image.open(jpeg).convert("RGB")
        if size:
            width, height = picture.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            picture = picture.crop((left, top, left + side, top + side))
            picture = picture.resize((size, size), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(picture))
    return np.stack(pictures), data["label"][chosen].astype("int64")


def movie_reviews(folder):
    """Reads sentences of movie reviews.

    Returns:
        Tuple of a list of strings and int64 labels, 1 where the mean sentiment is positive.
    """
    lines = pathlib.Path(folder, "movie_reviews.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t", 1) for line in lines[1:]]
    labels = np.array([float(sentiment) > 0 for sentiment, _ in pairs], "int64")
    return [text for _, text in pairs], labels


def audio(folder):
    """Reads the 16 kHz audio of some of the clips.

    Returns:
        Tuple of the samples, int16 (clips, 16000), and the clips' indices in `speech_mfcc.npz`,
        integers (clips,).
    """
    data = np.load(pathlib.Path(folder, "speech_audio_sample.npz"))
    # The second differences are stored as three byte planes, with the sign in the lowest bit.
    planes = np.frombuffer(lzma.decompress(data["audio_xz"].tobytes()), np.uint8)
    planes = planes.reshape(3, len(data["label"]), 16_000).astype(np.uint32)
    folded = planes[0] | planes[1] << 8 | planes[2] << 16
    samples = (folded >> 1).astype(np.int32) ^ -(folded & 1).astype(np.int32)
    for _ in range(2):
        samples = np.cumsum(samples, axis=1, dtype=np.int32)
    return samples.astype(np.int16), data["index_in_speech_mfcc"]
