"""MGGC: two agents choose channels of generator and discriminator in an adversarial game (AAAI 2024)."""
