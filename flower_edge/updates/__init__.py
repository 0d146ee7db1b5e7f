"""What a reply is, as numbers: which part of the model it is, its arrays without a copy, its merge with others.

manifest, update   what a node was given; what came back
npy                arrays from a message's bytes, without a copy and without trusting their header
places, regions    where parts of models overlap
sums, sample       norms, finiteness and samples of how far a reply has moved
ends, merges       where replies ended; the mean of any of them
"""
