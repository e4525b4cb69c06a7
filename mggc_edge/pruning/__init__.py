"""From a network and a budget to the channels that stay."""
