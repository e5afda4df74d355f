"""Published measures: by closed forms, by the libraries that the field uses, and what is said where weights lack."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_train_evaluate import film

from kdtalker.core.errors import InputError
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.video_writer import VideoWriter
from kdtalker.weights.table import ARCFACE, INCEPTION, SYNCNET
from train.evaluate import report as evaluate
from train.evaluate.cpbd import cpbd, edge_widths
from train.evaluate.films import CSIM, MeasuredVideo, PublishedNetworks, csim, fid
from train.evaluate.identity import ARCFACE_LANDMARKS, ARCFACE_PLACES, ARCFACE_PX, ArcFace, align_face
from train.evaluate.inception import InceptionV3, embed_video, frechet_distance, resize
from train.evaluate.metrics import FACE_BOXES, FACE_PX, lip_distance
from train.evaluate.syncnet import mfcc
from train.keypoints.validation import LIPS

EXAMPLES = Path(__file__).parents[2] / "examples"


def spread(shape, seed):
    """Numbers from -1 to 1 that look like noise and are the same everywhere."""
    places = np.arange(np.prod(shape, dtype=int))
    return torch.from_numpy((2 * (np.sin(places * 78.233 + seed) * 43758.5453 % 1) - 1).reshape(shape)).float()


def field(number, value):
    """A field of a protocol buffer: a number, or bytes or text with their length (below 128)."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    content = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(content)]) + content


def onnx_file(path, side=ARCFACE_PX):
    """An ONNX file: pictures (1, 3, side, side) to their mean red, green and blue (1, 3)."""

    def tensor(name, *sizes):
        shape = b"".join(field(1, field(1, size)) for size in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    pool = field(1, "picture") + field(2, "mean") + field(4, "GlobalAveragePool")
    flatten = field(1, "mean") + field(2, "embedding") + field(4, "Flatten")
    graph = field(1, pool) + field(1, flatten) + field(2, "toy")
    graph += field(11, tensor("picture", 1, 3, side, side)) + field(12, tensor("embedding", 1, 3))
    head = field(1, 8) + field(8, field(2, 13))
    path.write_bytes(head + bytes([7 << 3 | 2, len(graph) & 127 | 128, len(graph) >> 7]) + graph)
    return path


# --- LSE: what SyncNet hears -----------------------------------------------------------------------------------------


def test_cepstra_are_those_of_python_speech_features():
    samples = np.float32(0.4) * np.sin(np.arange(4000, dtype=np.float64) ** 2 / 3000).astype(np.float32)
    pcm = np.round(samples * 32768).astype(np.float32) / 32768
    expected = [23.22, -14.38, -40.59, 26.77, 25.12, -35.13, -6.14, 30.04, -6.64, -16.64, 10.0, 4.53, -5.34]
    assert mfcc(pcm)[:, 7] == pytest.approx(expected, abs=0.01)  # of version 0.6, by its defaults


# --- CSIM ------------------------------------------------------------------------------------------------------------


def test_a_face_is_aligned_to_the_five_points_of_arcface():
    image = read_image(EXAMPLES / "grace_hopper.jpg")
    landmarks = FaceTracker().find(image)[0].landmarks
    marked = np.zeros_like(image)
    for group in ARCFACE_LANDMARKS:
        cv2.circle(marked, tuple(int(value) for value in landmarks[list(group), :2].mean(0)), 3, (255, 255, 255), -1)
    crop = align_face(marked, landmarks, ARCFACE_LANDMARKS, np.array(ARCFACE_PLACES), ARCFACE_PX)
    for x, y in ARCFACE_PLACES:  # a similarity meets five points only nearly
        assert crop[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5].max() > 100


def test_embeddings_have_unit_length_and_see_the_face_in_rgb(tmp_path):
    network = ArcFace(onnx_file(tmp_path / ARCFACE))
    landmarks = film().landmarks[0]
    red = np.zeros((600, 600, 3), np.uint8)
    red[..., 0] = 255
    assert network.embed(red, landmarks) == pytest.approx(np.array([1, -1, -1]) / np.sqrt(3), abs=1e-3)


def test_csim_is_one_for_the_same_picture_and_less_for_another(tmp_path, monkeypatch):
    network = ArcFace(onnx_file(tmp_path / ARCFACE))
    blue, red = np.zeros((600, 600, 3), np.uint8), np.zeros((600, 600, 3), np.uint8)
    blue[..., 2], red[..., 0] = 255, 255
    shown = {"ours.mp4": [red, red, blue, blue], "real.mp4": [red] * 4}
    monkeypatch.setattr("train.evaluate.films.read_video", lambda path: iter(shown[path.name]))
    ours, real = (track(Path(name)) for name in shown)
    assert csim(network, real, None) == pytest.approx(1, abs=1e-5)
    assert csim(network, ours, real) == pytest.approx((1 + 1 - 1 / 3 - 1 / 3) / 4, abs=1e-3)


def track(path, frames=4):
    """A film of so many frames of a still face."""
    still = film(mouth=np.zeros(frames))
    object.__setattr__(still, "path", path)
    return still


def test_a_file_that_is_no_arcface_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"takes \[1, 3, 96, 96\], wanted one that takes \[N, 3, 112, 112\]"):
        ArcFace(onnx_file(tmp_path / "small.onnx", side=96))
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(InputError, match="cannot be read as an ONNX file"):
        ArcFace(tmp_path / "text.onnx")


# --- FID -------------------------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    """In one dimension (m1 - m2)² + (s1 - s2)²; of independent dimensions, their sum."""
    rows = np.random.default_rng(0).normal(size=(50, 3))
    rows = rows - rows.mean(0)
    rows = np.linalg.svd(rows, full_matrices=False)[0] * np.sqrt(49)  # covariance 1
    one, other = rows * [1, 2, 3] + [0, 0, 1], rows * [2, 2, 0.5] + [0, 3, 1]
    assert frechet_distance(one, other) == pytest.approx(1 + 9 + 2.5**2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one[:, :1], other[:, :1]) == pytest.approx(1)
    assert frechet_distance(one.astype(np.float32), one.astype(np.float32)[:2]) > 0  # fewer rows than dimensions


def test_pictures_are_resized_as_tensorflow_1_does():
    """Corners are aligned at the first pixel only and nothing is smoothed."""
    ramp = torch.arange(598.0).expand(1, 3, 598, 598)
    assert resize(ramp)[0, 0, 0].tolist() == list(range(0, 598, 2))
    two = torch.tensor([0.0, 299.0]).expand(1, 3, 2, 2)
    assert resize(two)[0, 0, 0, [0, 1, 149, 150, 298]].tolist() == pytest.approx([0, 2, 298, 299, 299])


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights that anyone can make again, in the layout of the published file, which has a classifier too."""
    state = {}
    for seed, (name, value) in enumerate(InceptionV3().state_dict().items()):
        noise = spread(tuple(value.shape), seed)
        if name.endswith("conv.weight"):
            state[name] = noise * (6 / value[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 1 + noise / 4
        elif not name.endswith("num_batches_tracked"):  # which the published file lacks
            state[name] = noise / 10
    path = tmp_path_factory.mktemp("weights") / INCEPTION
    torch.save({**state, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    return path


def test_inception_gives_the_features_of_torch_fidelity(inception_file):
    rows, columns = np.mgrid[:120, :160]
    frames = [
        np.stack(
            [128 + 100 * np.sin(rows / 9 + k), 128 + 100 * np.cos(columns / 7 - k), (rows * 2 + columns * k) % 256], -1
        ).astype(np.uint8)
        for k in range(3)
    ]
    features = embed_video(InceptionV3.load(inception_file), frames)
    expected = [  # of torch-fidelity 0.4.0, inception-v3-compat, with the same weights
        [0.0, 0.00062, 0.20473, 0.07685, 0.7319],
        [0.0, 0.00374, 0.18706, 0.08572, 0.96631],
        [0.0, 0.00155, 0.14232, 0.07699, 0.96539],
    ]
    assert features.shape == (3, 2048)
    assert features[:, [0, 500, 1000, 1500, 2047]] == pytest.approx(np.array(expected), abs=2e-4)
    assert features.mean() == pytest.approx(0.51773, abs=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / INCEPTION)
    with pytest.raises(InputError, match="is not Inception v3 as FID uses it"):
        InceptionV3.load(tmp_path / INCEPTION)


def test_fid_compares_all_frames_of_a_set(monkeypatch):
    class MeanColour(torch.nn.Module):
        def forward(self, pictures):
            return pictures.mean((2, 3))

    shown = {
        "a": [np.full((40, 60, 3), level, np.uint8) for level in (100, 120)],
        "b": [np.full((30, 30, 3), level, np.uint8) for level in (140, 160)],
    }
    monkeypatch.setattr("train.evaluate.films.read_video", lambda path: iter(shown[path.name]))
    a, b = (track(Path(name)) for name in shown)
    forth, back, alone = MeasuredVideo(a, {}, b, {}), MeasuredVideo(b, {}, a, {}), MeasuredVideo(a, {})
    assert fid(MeanColour(), [forth]) == pytest.approx(3 * (40 / 128) ** 2, rel=1e-4)
    assert fid(MeanColour(), [forth, back]) == pytest.approx(0, abs=1e-6)
    assert fid(MeanColour(), [alone]) is None


# --- CPBD ------------------------------------------------------------------------------------------------------------


def ramps(width, contrast=200):
    """A picture of bars whose edges are so many px wide."""
    line = np.interp(np.arange(256) % 64, [0, 20, 20 + width, 44, 44 + width, 64], [0, 0, contrast, contrast, 0, 0])
    return np.tile(20 + line, (128, 1))


@pytest.mark.parametrize("width", [1, 3, 6])
def test_edges_are_as_wide_as_they_were_drawn(width):
    widths = edge_widths(ramps(width))
    assert set(np.unique(widths)) == {0, width}


def test_cpbd_counts_edges_up_to_the_just_noticeable_blur():
    """3 px where the contrast is high, 5 px where it is low."""
    assert [cpbd(ramps(width)) for width in (1, 3, 4, 6)] == [1, 1, 0, 0]
    assert [cpbd(ramps(width, contrast=40)) for width in (3, 5, 6)] == [1, 1, 0]
    assert cpbd(np.full((128, 128, 3), 90, np.uint8)) == 0


def test_cpbd_is_near_that_of_the_library_and_falls_with_blur():
    expected = {"grace_hopper.jpg": [0.714, 0.356, 0.079, 0.010], "astronaut.png": [0.384, 0.219, 0.078, 0.007]}
    for name, values in expected.items():  # of cpbd 1.0.7
        image = read_image(EXAMPLES / name)
        found = [cpbd(cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image) for sigma in (0, 0.7, 1.2, 2)]
        assert found == pytest.approx(values, abs=0.1) and found == sorted(found, reverse=True)


# --- LMD -------------------------------------------------------------------------------------------------------------


def test_lmd_is_in_px_of_a_face_crop_and_leaves_out_where_the_lips_are():
    real = track(Path("real.mp4"))
    moved, larger = track(Path("ours.mp4")), track(Path("ours.mp4"))
    moved.landmarks[:, :, 0] += 30
    larger.landmarks[...] *= 2
    assert lip_distance(moved, real) == pytest.approx(0, abs=1e-3) == lip_distance(larger, real)
    other = track(Path("ours.mp4"))
    half = list(LIPS[: len(LIPS) // 2])
    other.landmarks[:, half, 1] += 4
    share = len(half) / len(LIPS)
    crop_px = FACE_BOXES * np.ptp(real.landmarks[0, :, :2], axis=0).max()
    assert lip_distance(other, real) == pytest.approx(4 * 2 * share * (1 - share) * FACE_PX / crop_px, rel=0.02)


# --- The command -----------------------------------------------------------------------------------------------------


def test_a_network_that_is_there_measures_and_the_others_are_named(tmp_path, monkeypatch, capsys):
    portrait = read_image(EXAMPLES / "grace_hopper.jpg")
    with VideoWriter(tmp_path / "a.mp4", *portrait.shape[1::-1], sound=EXAMPLES / "austen_0870.wav") as writer:
        for _ in range(8):
            writer.write(portrait)
    (tmp_path / "networks").mkdir()
    onnx_file(tmp_path / "networks" / ARCFACE)
    words = ["evaluate", "films", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", [*words, "--weights", str(tmp_path / "networks")])
    evaluate.main()
    told = capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["mean"][CSIM.name] > 0.99
    assert f"LSE-C and LSE-D left out: `kdtalker weights get {SYNCNET} --weights" in told
    assert f"FID left out: `kdtalker weights get {INCEPTION}" in told and "CSIM left out" not in told
    with pytest.raises(InputError, match="There is no folder"):
        PublishedNetworks.load(tmp_path / "nowhere")
