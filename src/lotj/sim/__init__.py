"""The simulated robot cell. Nothing in here imports torch."""
