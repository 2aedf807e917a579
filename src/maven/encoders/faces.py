"""The embedded visual encoder: a small network on aligned grey faces."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]

CROP_PX = 56  # the aligned crop that the encoder asks for
FACE_PX = 48  # the part of it that the network sees, in training at a random offset
FACE_TOP_PX, FACE_LEFT_PX = 6, 4  # rows 6:54, columns 4:52: mouth and chin in, hair out
FACE_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FACE_BATCH = 64


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return F.relu(x + self.body(x))


def _down(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class FaceNet(nn.Module):
    """Grey faces (n, 1, 48, 48) in [0, 1] -> (n, 128); 3.1 M weights, 75 M multiply-adds."""

    width = 128
    stages = (40, 80, 160, 320)  # channels at 24, 12, 6 and 3 px

    def __init__(self) -> None:
        super().__init__()
        first = self.stages[0]
        self.maps = nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            Residual(first),
        )
        for width_in, width_out in itertools.pairwise(self.stages):
            self.maps += nn.Sequential(_down(width_in, width_out), Residual(width_out))
        last = self.stages[-1]
        self.embed = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(last * 2, self.width), nn.BatchNorm1d(self.width), nn.ReLU()
        )
        self.classes = nn.Linear(self.width, len(FACE_CLASSES))
        self.affect = nn.Linear(self.width, 2)

    def forward(self, faces: Tensor) -> Tensor:
        """Embed faces (n, 1, 48, 48), each standardised by its own mean and spread."""
        mean = faces.mean((1, 2, 3), keepdim=True)
        spread = faces.std((1, 2, 3), keepdim=True).clamp_min(0.05)
        maps = self.maps((faces - mean) / spread)
        pooled = torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1)
        return self.embed(pooled)  # type: ignore[no-any-return]

    def answer(self, embedded: Tensor) -> Tensor:
        """Read embeddings (n, 128) -> valence, arousal and seven class logits (n, 9)."""
        return torch.cat((self.affect(embedded), self.classes(embedded)), -1)


def grey_faces(crops: Tensor) -> Tensor:
    """Turn RGB crops (n, 56, 56, 3) uint8 into grey ones (n, 1, 56, 56) in [0, 1], BT.601."""
    red, green, blue = crops.float().unbind(-1)
    return ((0.299 * red + 0.587 * green + 0.114 * blue) / 255.0)[:, None]


class Mirrored(nn.Module):
    """RGB crops (n, 56, 56, 3) uint8 -> the mean answer to each and its mirror image (n, 9)."""

    def __init__(self, net: FaceNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, crops: Tensor) -> Tensor:
        """Cut out what the network sees, in grey, and answer."""
        top, left = FACE_TOP_PX, FACE_LEFT_PX
        faces = grey_faces(crops[:, top : top + FACE_PX, left : left + FACE_PX])
        both = self.net.answer(self.net(torch.cat((faces, faces.flip(3)))))
        n = crops.shape[0]
        return (both[:n] + both[n:]) / 2


class MiniVisual:
    """`FaceNet` as a visual encoder: the mean answer to a crop and its mirror image.

    It passes on what its network learned to say (valence, arousal, class logits), not the embedding
    before it: those nine numbers mean the same on faces seen in training and on new ones, while the
    embedding of a face that was learned by heart does not.
    """

    size_px = CROP_PX
    rate_hz = None
    width = 2 + len(FACE_CLASSES)

    def __init__(self, net: FaceNet, fingerprint: str, device: str) -> None:
        self.name, self.fingerprint = "mini-face", fingerprint
        self.net, self._device = net.to(device).eval(), device
        self.mirrored = Mirrored(self.net).eval()

    @torch.inference_mode()
    def __call__(self, crops: npt.NDArray[np.uint8]) -> Floats:
        """Encode crops (n, 56, 56, 3) uint8 -> (n, 9)."""
        out = np.empty((len(crops), self.width), np.float32)
        for start in range(0, len(crops), FACE_BATCH):
            batch = torch.from_numpy(crops[start : start + FACE_BATCH]).to(self._device)
            out[start : start + len(batch)] = self.mirrored(batch).cpu().numpy()
        return out
