"""Measure artifacts: fresh processes, interleaved pairs, every raw sample kept."""
