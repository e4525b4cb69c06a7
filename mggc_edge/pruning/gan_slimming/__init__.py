"""GAN Slimming: channels leave by an L1 norm on their scales, in one objective with GAN loss and distillation."""
