"""Long work in a run folder: it is written as it comes, and goes on where it was stopped."""
