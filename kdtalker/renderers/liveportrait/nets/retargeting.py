"""The three small networks of LivePortrait (arXiv 2407.03168, section 3.2 and 3.3): stitching, lips, eyes."""

from __future__ import annotations

from torch import Tensor, nn

from kdtalker.core.motion import KEYPOINTS

STITCHING = (6 * KEYPOINTS, 128, 128, 64, 3 * KEYPOINTS + 2)
LIPS = (3 * KEYPOINTS + 2, 128, 128, 64, 3 * KEYPOINTS)
EYES = (3 * KEYPOINTS + 3, 256, 256, 128, 128, 64, 3 * KEYPOINTS)


class RetargetingNetwork(nn.Module):
    """Linear layers of these widths with ReLU between them: (B, widths[0]) to (B, widths[-1])."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out
