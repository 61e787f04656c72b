"""Losses and learners: reward classifier, IQL, critic ensemble."""
