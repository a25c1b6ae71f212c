"""Giving vectors to centroids in equal parts at the least cost: an auction, then shortest paths.

Shapes: N vectors, K centroids, E their width.
"""

import numpy as np
import torch

from pixelrec_train.errors import InputError

AUCTION_ROUNDS = 40
SOLD = 0.005  # share of the vectors that may be over when the auction ends; shortest paths move them
ROUGHLY = 0.03  # the same where the auction is all there is
EXACT = 1024  # centroids up to which the paths are searched; of more, every move is a direct one
MOST_STEPS = 100  # of a path; far more than one has
SAMPLE = 20_000  # vectors that give the first prices where there are more
LARGEST = 1 << 30  # entries of the table of costs, 4 bytes each


def check_size(num_vectors, k):
    if num_vectors * k > LARGEST:
        raise InputError(
            f"--quantiser rq_kmeans_balanced would hold {num_vectors:,} x {k:,} distances at once. Lower "
            f"--codebook_size, or use rq_kmeans."
        )


def balanced_assignment(vectors, centroids, prices=None, roughly=False):
    """Each of K centroids gets N/K vectors, rounded down or up; the sum of squared distances is least.

    Least of all where K divides N and K <= EXACT, else close to it. Deterministic. An auction first raises
    the prices of centroids that too many prefer. For the numbers of vectors the centroids then have no
    assignment is cheaper, whatever the prices. Moving one vector at a time along the cheapest path, from a
    centroid that has too many over others to one that has room, keeps it so (successive shortest paths).

    Args:
        vectors, centroids: [N, E] and [K, E] fp32.
        prices: [K] of an earlier call with similar centroids, to be faster, or None.
        roughly: the auction alone, in which the parts may still differ a little.

    Returns:
        ([N] int64 centroid of each vector, [K] prices at which each vector would choose it by itself)
    """
    table, points = torch.from_numpy(centroids), torch.from_numpy(vectors)
    # Half the squared distance, without the part that is the same for every centroid.
    costs = (table**2).sum(1) / 2 - points @ table.T  # [N, K]
    if len(vectors) > SAMPLE:
        sample = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
        prices = balanced_assignment(vectors[sample], centroids, prices, roughly=True)[1]
    assigned, prices = auction(costs, prices, ROUGHLY if roughly else SOLD)
    if roughly:
        return assigned, prices
    low, high = len(vectors) // len(centroids), -(-len(vectors) // len(centroids))
    too_many, too_few = (lambda size: (size > high, size < high)), (lambda size: (size > low, size < low))
    if len(centroids) > EXACT:
        priced = costs.add_(torch.from_numpy(prices)).numpy()
        settle_directly(priced, assigned, too_many)
        settle_directly(priced, assigned, too_few)
        return assigned, prices
    moves = Moves(costs.numpy(), assigned)
    settle_by_paths(moves, too_many)
    settle_by_paths(moves, too_few)
    return assigned, -cheapest_ways(moves.cost, np.ones(len(centroids), bool), moves.slack)[0]


def auction(costs, prices, may_be_over):
    """([N] cheapest centroid at the final prices, [K] prices)"""
    k = costs.shape[1]
    high = -(-len(costs) // k)
    prices = np.zeros(k, np.float32) if prices is None else prices.copy()
    for _ in range(AUCTION_ROUNDS):
        priced = costs + torch.from_numpy(prices)
        cheapest, best = priced.min(1)
        size = np.bincount(best.numpy(), minlength=k)
        over = np.flatnonzero(size > high)
        if (size[over] - high).sum() <= may_be_over * len(costs):
            break
        second = priced.scatter_(1, best[:, None], torch.inf).min(1).values
        regret = (second - cheapest).numpy()  # what leaving its centroid costs a vector
        # The price at which just as many prefer to leave as there are too many.
        order = np.lexsort((regret, best.numpy()))
        start = np.cumsum(size) - size
        prices[over] += regret[order[start[over] + size[over] - high - 1]] * 1.0001 + 1e-12
    return best.numpy(), prices


def settle_by_paths(moves, who):
    """Move vectors, in place, until none of `who`'s givers, or takers, is left.

    who: [K] sizes -> ([K] bool centroids that have too many, [K] bool centroids that have room).
    """
    size = np.bincount(moves.assigned, minlength=len(moves.cost))
    while all(side.any() for side in who(size)):
        givers, takers = who(size)
        cost, before, unsettled = cheapest_ways(moves.cost, givers, moves.slack)
        way = way_to(int(np.where(takers, cost, np.inf).argmin()), before)
        for centroid in unsettled[:1]:
            circle = way_to(int(centroid), before)
            way = circle if circle[0] == circle[-1] else way
        movers = [moves.vector[d, c] for d, c in zip(way, way[1:], strict=False)]
        for vector, d in zip(movers, way, strict=False):
            moves.take(vector, d)
        size[way[-1]] -= 1
        size[way[0]] += 1


def way_to(end, before):
    """Centroids from the end of a way to its begin. Where rounding has let a circle save something, that
    circle: to go round it is worth it, and changes no size."""
    way = [end]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
        if way[-1] in way[:-1]:
            return way[way.index(way[-1]) :]
    return way


def cheapest_ways(move, givers, slack):
    """([K] cost of the cheapest way from any giver to each centroid, [K] the one before on it, -1 = none,
    centroids whose cost was still falling after MOST_STEPS).

    Bellman-Ford.

    Args:
        move: [K, K], to row from column.
        slack: gains that rounding may feign; without it a circle could look like one.
    """
    cost = np.where(givers, np.float32(0), np.float32(np.inf))
    before, news = np.full(len(move), -1), np.flatnonzero(givers)
    for _ in range(MOST_STEPS):
        through = move[:, news] + cost[news]  # [K, news]
        better = np.flatnonzero(through.min(1) < cost - np.where(np.isinf(cost), 0, np.float32(slack)))
        found = through[better]
        place = found.argmin(1)
        cost[better], before[better] = found[np.arange(len(better)), place], news[place]
        news = better
        if not len(news):
            break
    return cost, before, news


class Moves:
    """The cheapest vector to take from any centroid to any other, kept up to date.

    cost[d, c] is what it costs to take the cheapest vector of c to d, vector[d, c] which one that is.
    """

    def __init__(self, costs, assigned):
        k = costs.shape[1]
        self.costs, self.assigned = costs, assigned
        self.slack = 1e-6 * float(np.abs(costs).max())
        self.members = [list(np.flatnonzero(assigned == c)) for c in range(k)]
        self.cost, self.vector = np.full((k, k), np.inf, np.float32), np.full((k, k), -1)
        for c in range(k):
            self.search(c, np.arange(k))

    def search(self, c, to):
        """Find the cheapest vector of c anew, for these destinations."""
        own = np.array(self.members[c], np.int64)
        if not len(own):
            self.cost[to, c], self.vector[to, c] = np.inf, -1
            return
        extra = self.costs[own[:, None], to] - self.costs[own, c][:, None]
        place = extra.argmin(0)
        self.cost[to, c], self.vector[to, c] = extra[place, np.arange(len(to))], own[place]
        self.cost[c, c] = np.inf

    def take(self, vector, d):
        c = self.assigned[vector]
        self.members[c].remove(vector)
        self.members[d].append(vector)
        self.assigned[vector] = d
        self.search(c, np.flatnonzero(self.vector[:, c] == vector))
        extra = self.costs[vector] - self.costs[vector, d]
        cheaper = np.flatnonzero(extra < self.cost[:, d])
        cheaper = cheaper[cheaper != d]
        self.cost[cheaper, d], self.vector[cheaper, d] = extra[cheaper], vector


def settle_directly(costs, assigned, who):
    """As settle_by_paths, by single moves, the cheapest first: for many centroids with few vectors each.

    costs: [N, K]; assigned: [N].
    """
    size = np.bincount(assigned, minlength=costs.shape[1])
    while True:
        givers, takers = who(size)
        if not givers.any() or not takers.any():
            return
        rows, open_ = np.flatnonzero(givers[assigned]), np.flatnonzero(takers)
        extra = costs[np.ix_(rows, open_)] - costs[rows, assigned[rows]][:, None]
        target = open_[extra.argmin(1)]
        for place in np.argsort(extra.min(1), kind="stable"):
            vector, to = rows[place], target[place]
            givers, takers = who(size)
            if givers[assigned[vector]] and takers[to]:
                size[assigned[vector]] -= 1
                size[to] += 1
                assigned[vector] = to
