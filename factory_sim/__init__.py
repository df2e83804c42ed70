"""Token economics of AI factories: what a million tokens cost, how fast they arrive and what they earn."""

__version__ = "0.1.0"
