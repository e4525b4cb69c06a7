"""Calibration: which values the inner tensors of a graph take, observed on pictures. Engine-neutral, without torch."""
