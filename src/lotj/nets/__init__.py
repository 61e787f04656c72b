"""Encoders, the domain adversarial information bottleneck, and heads."""
