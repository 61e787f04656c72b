"""Experiments over many runs, each resumable: what `lotj tables` repeats and writes into `results/`."""
