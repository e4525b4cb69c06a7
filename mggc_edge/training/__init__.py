"""Recipes that train: originals, discriminators, encoders, and slim pairs."""
