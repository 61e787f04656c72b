"""Learning on the job: a robot masters a novel connector by practising and rewarding itself (Nair et al., 2022)."""

__version__ = "0.1.0"
