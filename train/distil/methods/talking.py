"""Talking after Talking Models (arXiv 2310.03188): the student sends a message, the teacher's upper layers think about
it, and their reply, in the message space too, is the target of the student's upper state: it holds nothing that the
student could not know. No code was at hand: distances, weights and the number of rounds are ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from kdtalker.audio.whisper import LAYERS_KEPT, STEPS_PER_FRAME
from kdtalker.audio.whisper_network import WhisperBlock
from train.distil.distiller import DistilBatch, Distiller, Logged, StudentOutput, TeacherOutput
from train.harness.training import CheckedConfig, number

LOWER_STAGE = 1  # index of the student's stage that speaks, at the teacher's 50 Hz


@dataclass(frozen=True)
class TalkingConfig(CheckedConfig):
    """Weigh the terms. message, hidden: widths of messages and of the four MLPs; interact, message_weight,
    state_weight: of the three losses; held_steps: the student's upper state is only a target, not moved, for so many
    steps; shuffles: replies go to another clip, for comparison."""

    weight: float = number(1.0, 0)
    message: int = number(64, 1)
    hidden: int = number(128, 1)
    interact: float = number(1.0, 0)
    message_weight: float = number(0.1, 0)
    state_weight: float = number(0.1, 0)
    held_steps: int = number(500, 0)
    shuffles: bool = False


class UpperLayers(nn.Module):
    """Run the teacher's upper transformer layers, frozen: (B, L, width) to the same. Steps attend to themselves and
    those before alone: the student's states have heard the look-ahead already, more would be a leak."""

    def __init__(self, blocks: Sequence[WhisperBlock], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for block in cast("list[WhisperBlock]", list(self.blocks)):
            qkv = block.attention_in(block.attention_norm(x))
            query, key, value = rearrange(qkv, "n t (qkv heads c) -> qkv n heads t c", qkv=3, heads=block.heads)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + block.attention_out(rearrange(mixed, "n heads t c -> n t (heads c)"))
            x = x + block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(x))))
        out: Tensor = self.norm(x)
        return out


class Talker(nn.Module):
    """Hold the four modules: encoders of both models to messages, decoders of messages to their states."""

    def __init__(self, lower: int, upper: int, teacher: int, config: TalkingConfig) -> None:
        """lower, upper: widths of the student's two states; teacher: width of the teacher's."""
        super().__init__()

        def mlp(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, config.hidden), nn.GELU(), nn.Linear(config.hidden, outputs))

        self.encode_student, self.decode_student = mlp(lower, config.message), mlp(config.message, upper)
        self.encode_teacher, self.decode_teacher = mlp(teacher, config.message), mlp(config.message, teacher)


@dataclass(frozen=True)
class Conversation:
    """Hold one round: the student's message (B, 2 T, M), the reply (B, T, D) in the student's upper space, and the
    three losses."""

    message: Tensor
    reply: Tensor
    interact: Tensor
    message_loss: Tensor
    state_loss: Tensor


def converse(
    talker: Talker,
    upper_layers: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    teacher_lower: Tensor,
    *,
    shuffles: bool = False,
) -> Conversation:
    """Run one round with the student's states lower (B, 2 T, d), upper (B, T, D) and the teacher's lower state
    (B, 2 T, width)."""

    def per_frame(states: Tensor) -> Tensor:
        return reduce(states, "b (t s) c -> b t c", "mean", s=states.shape[1] // upper.shape[1])

    message = talker.encode_student(lower)  # m_s = Enc_s(s_l)
    thought = upper_layers(talker.decode_teacher(message))  # t^_h = teacher's upper layers on Dec_t(m_s)
    answer = talker.encode_teacher(thought)  # m_t = Enc_t(t^_h)
    if shuffles:
        answer = answer.roll(1, 0)
    reply = talker.decode_student(per_frame(answer))  # s^_h = Dec_s(m_t)
    teacher_message = talker.encode_teacher(teacher_lower)
    consistent = F.mse_loss(talker.decode_student(per_frame(message)), upper)  # d(h, Dec(Enc(h))) of both models
    consistent = consistent + F.mse_loss(talker.decode_teacher(teacher_message), teacher_lower)
    return Conversation(
        message, reply, F.mse_loss(reply, upper), F.mse_loss(message, teacher_message), consistent
    )  # d(s^_h, s_h); d(Enc_s(s_l), Enc_t(t_l)); d = mean square error


class Talking(Distiller):
    """Teach the student's upper state by replies of the teacher's upper layers."""

    def __init__(self, lower: int, upper: int, upper_layers: UpperLayers, config: TalkingConfig) -> None:
        super().__init__()
        self.talker = Talker(lower, upper, upper_layers.norm.normalized_shape[0], config)
        self._upper_layers, self._config = (upper_layers,), config  # in a tuple: frozen, no part of this module

    def loss(self, student: StudentOutput, teacher: TeacherOutput, batch: DistilBatch) -> tuple[Tensor, Logged]:
        config, upper = self._config, student.stages[-1]
        features = teacher.features.detach().to(upper.dtype)
        layers = rearrange(features, "b t (s l c) -> b (t s) l c", s=STEPS_PER_FRAME, l=LAYERS_KEPT)
        said = converse(
            self.talker, self._upper_layers[0].to(upper.device), student.stages[LOWER_STAGE],
            upper.detach() if self.step <= config.held_steps else upper, layers[:, :, 0], shuffles=config.shuffles,
        )  # fmt: skip
        loss = config.interact * said.interact + config.message_weight * said.message_loss
        loss = loss + config.state_weight * said.state_loss
        spread = said.message.detach().flatten(0, 1).var(0).mean()
        return config.weight * loss, {"interact": said.interact.item(), "message variance": spread.item()}
