"""From a network to files that inference engines run."""
