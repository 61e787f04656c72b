"""Trajectories on disk, batches in memory."""
