"""Frozen encoders: face crops, sound and words -> vectors; `base` says what each promises."""
