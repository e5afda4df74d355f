"""Live sessions: sound in at any time, one frame with its 40 ms of sound out for every tick of the sound's clock."""
