"""Videos and streams: frames in, a video with the objects and a line of JSON for each frame out."""
