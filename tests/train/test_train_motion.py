"""Training the motion model: configs are closed, runs go on exactly where they were stopped, what they write loads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_shards import SMALL_MODEL, shard, write_config, write_shards
from toy_training import assert_same_runs, command, fill_disk, killed_at_random, run_together

from kdtalker.apps import cli
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import Motion
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.fir_smoothing import EXPRESSION_KERNEL
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.speech import load_trained
from train.data.shards import save_published
from train.harness.command import command as command_of
from train.harness.config import read_config
from train.harness.curves import best_lag, correlation
from train.motion import export
from train.motion import trainer as motion
from train.motion.calibration import calibrate, predict_openings
from train.motion.dataset import Corpus
from train.motion.loss import DenoisingLoss
from train.motion.recipe import PRESETS, Recipe
from train.motion.windows import WindowDataset

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
KILLS, STEPS = 2, 80
LONG = f"steps = {STEPS}\nsave_every = 5\nvalidate_every = {STEPS // 2}\nvalidate_takes = 1\nwarm_up_steps = 20"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("prepared") / "shards")


def train(config, *arguments):
    return command("motion", config, *arguments)


def recipe_of(tmp_path, shards, extra="", model=SMALL_MODEL):
    return read_config(write_config(tmp_path / "c.toml", shards, tmp_path / "run", extra, model), PRESETS)


def test_a_run_that_was_killed_twice_ends_in_the_same_bits(tmp_path, shards):
    once = write_config(tmp_path / "once.toml", shards, tmp_path / "once", LONG)
    again = write_config(tmp_path / "again.toml", shards, tmp_path / "again", LONG)
    kills = [killed_at_random("motion", [again], tmp_path / "again", 0.3) for _ in range(KILLS)]
    assert train(again) == 0 and train(once) == 0
    assert_same_runs(tmp_path / "once", tmp_path / "again")
    assert kills[0] == -9, kills
    rows = [json.loads(line) for line in (tmp_path / "once" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [STEPS // 2, STEPS]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"r", "r_best", "lag", "amplitude", "yaw"} <= rows[0].keys()
    assert all((tmp_path / "once" / name).stat().st_size > 10_000 for name in ("curves.png", "motion.png"))
    model = DiffusionMotionModel.load(tmp_path / "once" / "motion.safetensors")
    assert (model.space, model.config.window) == ("mesh", 16)


def test_two_processes_train_one_model(tmp_path, shards):
    steps = "steps = 2\nvalidate_takes = 0"
    both = write_config(tmp_path / "both.toml", shards, tmp_path / "both", steps)
    assert run_together("motion", [both], 2) == [0, 0]
    alone = write_config(tmp_path / "alone.toml", shards, tmp_path / "alone", steps)
    alone.write_text(alone.read_text().replace("batch = 4", "batch = 2"))  # what the first of two gets
    assert train(alone) == 0
    models = [torch.load(tmp_path / run / "state.pt", weights_only=True)["denoiser"] for run in ("both", "alone")]
    assert any(not torch.equal(weights, models[1][name]) for name, weights in models[0].items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shards):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("trained")
    extra = "steps = 12\nvalidate_every = 6\nlog_every = 3"
    config = write_config(folder / "c.toml", shards, folder / "run", extra)
    config.write_text(config.read_text().replace('tracker = "none"', 'tracker = "tensorboard"'))
    assert train(config) == 0
    return folder / "run"


def test_what_was_told_can_be_seen_in_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "log"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert [row.step for row in events.Scalars("loss")] == [3, 6, 6, 9, 12, 12]
    assert {"r", "lag", "amplitude"} <= set(events.Tags()["scalars"])
    assert {"curves", "motion"} <= {tag.partition("/")[0] for tag in events.Tags()["images"]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("learning_rat = 1e-3", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("steps = 10.5", "'steps' as 10.5, wanted a whole number"),
        ("mirror = 1", "wanted true or false"),
        ("betas = [0.9]", "wanted 2 numbers in brackets"),
        ('device = "gpu"', "device is 'gpu', known are auto, cpu"),
        ("model = 3", "wanted a table"),
        ("[model]\nlayer = 3", r"table \[model\], has the unknown key 'layer'; did you mean 'layers'?"),
        ("audio_drop = 1.5", "audio_drop is 1.5, wanted from 0 to 1"),
        ('space = "liveportrait"', "set mirror = false"),
        ('calibration_films = "("', "calibration_films is no regular expression"),
        ("shortest_window = 70", "longer than one of the model's, 64"),
        ('precision = "half"', "known are float32, bfloat16, float16"),
        ('preset = "papers"', "known are mesh, live, paper"),
        ("steps = ", "is not TOML"),
    ],
)
def test_a_config_is_closed(tmp_path, line, told):
    (tmp_path / "c.toml").write_text(line)
    with pytest.raises(InputError, match=told):
        read_config(tmp_path / "c.toml", PRESETS)


def test_a_config_lies_over_its_preset(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "none.toml", PRESETS)
    (tmp_path / "c.toml").write_text('preset = "paper"\nclip = 1\n[model]\nlayers = 2\n')
    recipe = read_config(tmp_path / "c.toml", PRESETS)
    paper = PRESETS["paper"]
    assert recipe == replace(paper, clip=1.0, model=replace(paper.model, layers=2))
    assert (paper.betas, paper.learning_rate, paper.warm_up_steps, paper.batch) == ((0.95, 0.999), 5.12e-4, 2000, 256)
    assert (paper.clip, paper.model.window, paper.audio_noise_share) == (50, 64, 0.7)


def test_the_rate_warms_up_and_falls_like_a_cosine():
    recipe = Recipe(steps=1000, warm_up_steps=100, learning_rate=6e-4)
    assert recipe.learning_rate_at(50) == pytest.approx(3e-4, rel=0.01)
    assert recipe.learning_rate_at(500) == pytest.approx(3e-4)
    assert recipe.learning_rate_at(1000) == pytest.approx(0, abs=1e-9)


def test_a_dry_run_tells_sizes_and_writes_nothing(tmp_path, shards, capsys):
    config = write_config(tmp_path / "c.toml", shards, tmp_path / "run")
    assert train(config, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "3 takes" in told and "M parameters" in told and "memory" in told and "model.layers = 1" in told
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_continued_with_another_recipe_or_other_data(trained, shards, tmp_path, capsys):
    config = write_config(tmp_path / "c.toml", shards, trained, "steps = 12\nclip = 2.0")
    assert train(config) == 2
    assert "was begun with clip = 1.0, the config now says 2.0" in " ".join(capsys.readouterr().err.split())
    config = write_config(tmp_path / "c.toml", write_shards(tmp_path / "other", "ab"), trained, "steps = 12")
    assert train(config) == 2
    assert "3 takes, 180 frames to learn from, now there are 2 takes" in capsys.readouterr().err


def test_a_full_disk_is_told_and_keeps_the_last_state(tmp_path, shards, capsys, monkeypatch):
    config = write_config(
        tmp_path / "c.toml", shards, tmp_path / "run", "steps = 2\nsave_every = 1\nvalidate_takes = 0"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"last")
    fill_disk(monkeypatch, "state.pt")
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(tmp_path / "run" / "state.pt", lambda file: file.write(b"new" * 10_000))
    assert (tmp_path / "run" / "state.pt").read_bytes() == b"last"
    (tmp_path / "run" / "state.pt").unlink()
    assert train(config) == 1
    assert "No space left on device); make room and run this again" in capsys.readouterr().err

    @command_of
    def fills_the_disk():
        with open("/dev/full", "w", buffering=1) as full:
            full.write("what tensorboard tells\n")

    with pytest.raises(SystemExit, match="1"):
        fills_the_disk()
    assert "No space left on device); make room or choose another place" in capsys.readouterr().err
    (tmp_path / "taken").touch()
    assert train(write_config(tmp_path / "c.toml", shards, tmp_path / "taken")) == 1
    assert "It cannot be written" in (told := capsys.readouterr().err) and "taken" in told


def test_shards_that_cannot_serve_are_told(tmp_path, shards):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no shards"):
        Corpus.load(recipe_of(tmp_path, tmp_path / "empty"))
    with pytest.raises(InputError, match="no motion of the keypoint space 'liveportrait'"):
        Corpus.load(recipe_of(tmp_path, shards, 'space = "liveportrait"\nmirror = false'))
    with pytest.raises(InputError, match="of the split 'val'"):
        Corpus.load(recipe_of(tmp_path, write_shards(tmp_path / "val", "", "a")))
    recipe = recipe_of(tmp_path, shards, model="[model]\nwindow = 61")
    corpus = Corpus.load(recipe)
    with pytest.raises(InputError, match="has 61 frames, the longest stretch of film to learn from 60"):
        WindowDataset(corpus.training, corpus.normalisation, recipe, 4, 0)
    mute = replace(shard(), synced=False)
    (tmp_path / "mute").mkdir()
    mute.save(tmp_path / "mute")
    with pytest.raises(InputError, match="in sync"):
        Corpus.load(recipe_of(tmp_path, tmp_path / "mute"))
    (tmp_path / "mute" / "z.npz").write_bytes(b"no shard")
    with pytest.raises(InputError, match="z.npz' is no shard"):
        Corpus.load(recipe_of(tmp_path, tmp_path / "mute"))


def test_the_published_recipe_trains_in_its_own_space(tmp_path):
    folder = write_shards(tmp_path / "shards", "ab", "c")
    for name in "abc":
        made = shard(name)
        values, canonical = motion_in_published_space(len(made.landmarks))
        save_published(folder, made, values, canonical)
    model = SMALL_MODEL.replace("context = 4\noverlap = 3", 'audio_encoder = "whisper-tiny.en"\naudio_input = 2304')
    extra = 'preset = "paper"\nsteps = 2\nworkers = 0\nvalidate_every = 2'
    assert train(write_config(tmp_path / "c.toml", folder, tmp_path / "run", extra, model)) == 0
    made = DiffusionMotionModel.load(tmp_path / "run" / "motion.safetensors")
    assert (made.space, made.config.relative, made.config.prediction) == ("liveportrait", False, "epsilon")


def motion_in_published_space(frames):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.05, (frames, 70)).astype(np.float32)
    return Motion.from_vector(values, "liveportrait"), rng.normal(0, 0.3, (21, 3)).astype(np.float32)


def test_batches_follow_from_their_number(tmp_path, shards):
    recipe = recipe_of(tmp_path, shards)
    corpus = Corpus.load(recipe)
    windows, others = (WindowDataset(corpus.training, corpus.normalisation, recipe, 4, rank) for rank in (0, 1))
    assert torch.equal(windows[7].x, windows[7].x)
    assert windows[7].x.shape != windows[8].x.shape or not torch.equal(windows[7].x, windows[8].x)
    assert windows[7].x.shape != others[7].x.shape or not torch.equal(windows[7].x, others[7].x)
    batch = next(batch for batch in (windows[step] for step in range(99)) if batch.known.any())
    assert batch.known.sum(1).max() <= 4


def test_known_frames_do_not_count_and_silence_is_dropped_audio(tmp_path, shards):
    recipe = recipe_of(tmp_path, shards)
    corpus = Corpus.load(recipe)
    objective = DenoisingLoss(motion.Denoiser(recipe.model).eval(), recipe, corpus)
    batch = WindowDataset(corpus.training, corpus.normalisation, recipe, 4, 0)[0]
    everything = torch.ones_like(batch.known)
    assert objective(batch.x, everything, batch.features, batch.canonical, batch.reference).item() == 0
    assert objective(batch.x, batch.known, batch.features, batch.canonical, batch.reference).item() > 0


def test_clips_for_training_have_augmented_copies_and_unheard_ones_no_sound(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "shards", "ab", "v")
    replace(shard("c"), synced=False).save(folder)
    recipe = recipe_of(tmp_path, folder, "augmented_copies = 2")
    corpus = Corpus.load(recipe)
    heard, silent = ([clip for clip in corpus.training if clip.features.any() == kind] for kind in (True, False))
    assert [len(clip.copies) for clip in heard] == [2, 2] and [clip.speaker for clip in silent] == ["c"]
    assert [len(clip.copies) for clip in corpus.validation] == [0]
    for clip in heard:
        assert all(len(copy.motion) == len(copy.features) != len(clip.motion) for copy in clip.copies)
    objective, adapted = DenoisingLoss(Denoiser(recipe.model).eval(), recipe, corpus), []
    monkeypatch.setattr(objective.denoiser, "adapt", lambda features: features.sum(-1, keepdim=True) + 1)
    features = torch.cat([torch.zeros(4, 8, 2304), torch.ones(4, 8, 2304)])
    adapted = sum(objective._augment_audio(features) for _ in range(20))
    assert not adapted[:4].any() and adapted[4:].any()


def test_calibration_gives_mouth_and_head_the_deviation_of_the_clips(tmp_path, shards):
    recipe = recipe_of(tmp_path, shards, "augmented_copies = 0")
    corpus = Corpus.load(recipe)
    torch.manual_seed(0)
    denoiser = Denoiser(recipe.model).eval().requires_grad_(False)
    denoiser.output.weight *= 2
    model = DiffusionMotionModel(denoiser, corpus.normalisation, "mesh")
    silence = np.zeros(2304, np.float32)
    gains = calibrate(model, corpus.training, corpus.mouth[0], silence).head_gain
    assert ((gains > 0.5) & (gains < 3)).any()
    scaled = replace(model, normalisation=scale_head(model.normalisation, gains))
    again = calibrate(scaled, corpus.training, corpus.mouth[0], silence)
    inside = (gains > 0.5) & (gains < 3)
    np.testing.assert_allclose(again.head_gain[inside], 1, atol=0.2)
    assert calibrate(replace(model, space="liveportrait"), corpus.training, corpus.mouth[0], silence) is None


@pytest.mark.parametrize("guidance", [0.7, 1.6, 2.5])
def test_calibration_gives_the_mouth_its_deviation_in_the_median_clip(tmp_path, shards, guidance):
    """Films whose mouths move as far as predictions under some guidance are given that guidance."""
    recipe = recipe_of(tmp_path, shards, "augmented_copies = 0")
    corpus = Corpus.load(recipe)
    torch.manual_seed(0)
    model = DiffusionMotionModel(Denoiser(recipe.model).eval().requires_grad_(False), corpus.normalisation, "mesh")
    mouth, films = corpus.mouth[0], []
    for clip, apart in zip(corpus.training, (0.6, 1.0, 1.9), strict=True):
        heard, without = predict_openings(model, clip, mouth)
        wanted = np.convolve(without + guidance * (heard - without), EXPRESSION_KERNEL, "valid").std()
        motion = clip.motion.copy()
        factor = apart * wanted / (motion[:, 7:] @ mouth).std()
        motion[1:, 7:] = motion[0, 7:] + factor * (motion[1:, 7:] - motion[0, 7:])
        films.append(replace(clip, motion=motion))
    found = calibrate(model, films, mouth, np.zeros(2304, np.float32)).mouth_guidance
    assert found == pytest.approx(guidance, abs=0.051)


def scale_head(normalisation, gains):
    std = normalisation.std.copy()
    std[1:7] *= gains
    return replace(normalisation, std=std)


def test_late_curves_are_found_late():
    curve = np.random.default_rng(0).standard_normal(100)
    assert best_lag(np.roll(curve, 3), curve) == 3
    assert correlation(np.roll(curve, 3), curve, 3) == pytest.approx(1)
    assert correlation(curve, np.zeros(100)) == 0


def test_an_exported_run_speaks(trained, tmp_path, capsys, monkeypatch):
    file, film = tmp_path / "mine.safetensors", tmp_path / "film.mp4"
    monkeypatch.setattr("sys.argv", ["export", str(trained), "--out", str(file), "--licence", "mine"])
    export.main()
    assert "licence: mine" in capsys.readouterr().out
    card = DiffusionMotionModel.load(file).card
    assert card["licence"] == "mine" and json.loads(card["figures"])["step"] == 12
    said = ["--image", str(EXAMPLES / "grace_hopper.jpg"), "--audio", str(EXAMPLES / "austen_0920.wav")]
    assert cli.main([*said, "--output", str(film), "--checkpoint", str(file)]) == 0
    assert film.stat().st_size > 10_000


def narrow(model):
    return replace(model, denoiser=Denoiser(replace(model.config, audio_input=12)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: replace(model, space="liveportrait"), "moves keypoints of the space 'liveportrait'"),
        (narrow, "takes 12 audio features a frame, 'whisper-tiny.en' gives 2304"),
        (lambda model: replace(model, denoiser=Denoiser(replace(model.config, audio_encoder="other"))), "known are"),
    ],
    ids=["space", "dimensions", "encoder"],
)
def test_a_model_that_does_not_fit_is_refused(trained, tmp_path, change, told):
    change(DiffusionMotionModel.load(trained / "motion.safetensors")).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=told):
        load_trained(tmp_path / "other.safetensors", "mesh")


def test_a_run_without_a_model_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="holds no model yet"):
        export.export(tmp_path, tmp_path / "a.safetensors", "", "")
