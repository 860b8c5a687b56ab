"""Training and scoring: losses, scores, the Lightning module, runs and their files."""
