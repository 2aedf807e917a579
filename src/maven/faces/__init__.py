"""Faces: found in a frame, followed through a video, cut out upright."""
