"""Files in and out: sound, pictures, videos, through ffmpeg."""
