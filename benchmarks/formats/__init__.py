"""What other programs read of a measurement: one format a file."""
