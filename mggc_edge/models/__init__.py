"""Networks rebuilt from a description: the layer table, its families, checkpoints, slimming."""
