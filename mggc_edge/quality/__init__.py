"""How good pictures are, and how well two runners agree."""
