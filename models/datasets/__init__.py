"""Pairs to learn from, as PyTorch data sets: stored ones, and fresh ones that are made while the training goes on.

Every draw is a function of (seed, number of the draw), so that a resumed run sees exactly the patches that an undisturbed
one sees, whatever the number of loading processes.
"""

from models.datasets.drawn import DrawnPair, PairSource
from models.datasets.fresh_batches import FreshBatches
from models.datasets.fresh_pairs import FreshPairs
from models.datasets.loaded_batches import LoadedBatches
from models.datasets.pair_shards import PairShards, holds_pairs
from models.datasets.read_ahead import read_ahead

__all__ = [
    "DrawnPair",
    "FreshBatches",
    "FreshPairs",
    "LoadedBatches",
    "PairShards",
    "PairSource",
    "holds_pairs",
    "read_ahead",
]
