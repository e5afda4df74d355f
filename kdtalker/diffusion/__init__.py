"""Features to motion: denoiser, sampler, windows, smoothing."""
