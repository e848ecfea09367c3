"""Prints one line of the table of `make bench`.

Standard input: a line for each pair, with the milliseconds of slipway, of
buildx, and of slipway from submission to active.
"""

import statistics
import sys


def spread(values):
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


pairs = [[float(word) for word in line.split()] for line in sys.stdin]
slipway, buildx, active = zip(*pairs)
ratios = [ours / theirs for ours, theirs in zip(slipway, buildx)]
ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
print(f"{sys.argv[1]:<18} {spread(slipway):<20} {spread(buildx):<20} {ratio:<22} {spread(active)}")
