"""Precisions of a finished fp32 graph: fp16 and int8 files made from it, and whether each is worth having."""
