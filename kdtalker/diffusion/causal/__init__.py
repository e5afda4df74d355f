"""The causal motion model, a student of the diffusion model: one frame after the other, in one or two steps."""
