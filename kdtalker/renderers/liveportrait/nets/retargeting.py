"""Stitching and retargeting MLPs of LivePortrait (arXiv 2407.03168, sections 3.2 and 3.3)."""

from __future__ import annotations

from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS

# Layer widths. Stitching: source and driving keypoints to keypoint offsets and a shift (x, y). Lips and eyes: source
# keypoints, current and wanted opening ratio to keypoint offsets.
STITCHING = (6 * KEYPOINTS, 128, 128, 64, 3 * KEYPOINTS + 2)
LIPS = (3 * KEYPOINTS + 2, 128, 128, 64, 3 * KEYPOINTS)
EYES = (3 * KEYPOINTS + 3, 256, 256, 128, 128, 64, 3 * KEYPOINTS)


class RetargetingNetwork(nn.Module):
    """Map (B, widths[0]) to (B, widths[-1]) by an MLP of these widths with ReLU between its layers."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out
