"""Click-through-rate models built on pairwise and higher-order interactions."""
