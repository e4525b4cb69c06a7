"""Inference engines, one file each, behind one narrow protocol."""
