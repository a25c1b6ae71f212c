"""Every vector of a catalogue compared: what stands before a target, and the nearest ones.

The score of a pair is one number wherever it is asked for: the inner product of two fp32 vectors, summed in
fp64 and rounded to fp32 once. So neither places nor lists depend on blocks, ranks or the rough scores that
come first. Users whose embedding is not finite have no nearest items.
"""

import torch

from pixelrec_train.evaluation.rough import Fp32, rough_scores

AT_ONCE = 1 << 16  # numbers of pairs of vectors that are multiplied at a time; they stay in cache
DEPTH = 16  # columns of which the largest is looked at first


class ExactIndex:
    def __init__(self, vectors):
        """vectors: Vectors, finite."""
        self.vectors, self.rough, self.close = vectors, rough_scores(vectors), Fp32(vectors)

    def __len__(self):
        return len(self.vectors)

    def scores_of(self, queries, rows, numbers):
        """[n] fp32 the score of queries[rows[i]] and vectors[numbers[i]]; queries: [b, D] fp32."""
        rows, numbers = (torch.from_numpy(x).to(self.vectors.device) for x in (rows, numbers))
        return self.scores(on_device(queries, self.vectors.device)[0], rows, numbers).cpu().numpy()

    def scores(self, users, rows, numbers):
        """[n] fp32 the score of users[rows[i]] and vectors[numbers[i]]."""
        return products(users, self.vectors, rows, numbers).float()

    def ahead(self, queries, value, target, limit, enough):
        """What is named before each user's target.

        Args:
            queries: [b, D] fp32.
            value: [b] fp32 the score of each user's target, of scores_of_pairs.
            target: [b] vectors; -1 = it is none of these.
            limit: [b] an equal vector is before the target if its number is below it.
            enough: [b] a user who has that many before the target, or more, is given up.

        Returns:
            [n] user, [n] vector, [n] bool whether it scores higher; of equals, the target's vector among
            them, those below the limit. And [b] bool who is given up, and has perhaps not all of them.
        """
        device = self.vectors.device
        users, finite = on_device(queries, self.vectors.device)
        given = value, target, limit, enough
        value, target, limit, enough = (torch.from_numpy(x).to(device) for x in given)
        asked = self.rough.ask(users)
        least, most = asked.surely_below(value.double()), asked.surely_above(value.double())
        counts, active, found, first = torch.zeros_like(enough), finite.nonzero()[:, 0], [], 0
        for number in range(len(self.rough.blocks)):
            block = Block(self.rough.scores(asked.operand.index_select(0, active), number))
            over = (block.largest > most[active, None]).sum(dim=1)  # or more, as each is one of several
            far = counts[active] + over >= enough[active]
            at, column, scores = block.reach(least[active], ~far)
            rows, numbers = active.index_select(0, at), column + first
            higher, before = self.judged(users, value, target, limit, rows, numbers, scores > most[rows])
            found.append((rows[before], numbers[before], higher[before]))
            counts += torch.bincount(rows[before], minlength=len(counts))
            counts[active[far]] = enough[active[far]]
            active, first = active[counts[active] < enough[active]], first + block.columns
            if not len(active):
                break
        rows, numbers, higher = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
        return rows, numbers, higher, (~finite | (counts >= enough)).cpu().numpy()

    def judged(self, users, value, target, limit, rows, numbers, higher):
        """[n] bool whether a pair scores higher than the user's target, and [n] whether it is before it.

        Args:
            users, value, target, limit: as in ahead; value: [b] fp32 of the targets.
            rows, numbers: [n] pairs.
            higher: [n] of which that much is sure; it is completed.
        """
        open_ = (~higher).nonzero()[:, 0]
        here, there = rows.index_select(0, open_), numbers.index_select(0, open_)
        closer, theirs, own = self.scores(users, here, there), value[here], there == target[here]
        higher[open_] = (closer > theirs) & ~own
        before = higher.clone()
        before[open_] |= ((closer == theirs) | own) & (there < limit[here])
        return higher, before

    def search(self, queries, wanted):
        """The nearest wanted[b] vectors of each user b.

        Args:
            queries: [b, D] fp32.
            wanted: [b] at least 1.

        Returns:
            [n] user, [n] vector, [n] score: of the nearest, by user, in no order else; and of some more.
        """
        users, finite = on_device(queries, self.vectors.device)
        asked = self.rough.ask(users)
        wanted = torch.from_numpy(wanted).to(users.device).clamp_max(len(self))
        nearest = Nearest(asked, wanted)
        for number in range(len(self.rough.blocks)):
            nearest.add(Block(self.rough.scores(asked.operand, number)))
        rows, numbers, _ = nearest.merge()
        if len(rows) > 2 * int(wanted.sum()):
            close = products(users.float(), self.vectors, rows, numbers)
            may, _ = among_nearest(rows, close, wanted, self.close.ask(users))
            rows, numbers = rows[may], numbers[may]
        rows, numbers = rows[finite[rows]], numbers[finite[rows]]
        scores = self.scores(users, rows, numbers)
        return rows.cpu().numpy(), numbers.cpu().numpy(), scores.cpu().numpy()


def on_device(queries, device):
    """[b, D] fp64 on the device, and [b] which are finite; the others are 0. queries: [b, D] fp32."""
    queries = torch.from_numpy(queries).to(device, torch.float64)
    finite = queries.isfinite().all(dim=1)
    return torch.where(finite[:, None], queries, 0.0), finite


def scores_of_pairs(queries, vectors):
    """[b] fp32 the score of each of [b, D] fp32 queries and the vector of its number, of b Vectors."""
    each = torch.arange(len(vectors), device=vectors.device)
    return products(on_device(queries, vectors.device)[0], vectors, each, each).float().cpu().numpy()


def products(users, vectors, rows, numbers):
    """[n] inner product of users[rows[i]] and vectors[numbers[i]], in the precision of users."""
    size = max(1, AT_ONCE // vectors.width)
    parts = [
        users.index_select(0, r).mul_(vectors.rows(n)).sum(dim=1)
        for r, n in zip(rows.split(size), numbers.split(size), strict=True)
    ]
    return torch.cat(parts)


class Block:
    """Rough scores of a block, and the largest of every DEPTH: where that one is small none is looked at."""

    def __init__(self, scores):
        """scores: [b, n]"""
        self.columns = scores.shape[1]
        self.depth = 1 if self.columns % DEPTH else DEPTH
        self.scores = scores.reshape(len(scores), self.depth, self.columns // self.depth)
        self.largest = self.scores.amax(dim=1)  # [b, n / depth]

    def reach(self, levels, wanted=None):
        """[m] rows, increasing, [m] columns and [m] scores of all that are at least [b] levels.

        Args:
            wanted: [b] bool, the rows that are asked for; None = all.
        """
        hit = self.largest >= levels[:, None]
        row, place = (hit if wanted is None else hit & wanted[:, None]).nonzero(as_tuple=True)
        width = self.largest.shape[1]
        depths = torch.arange(self.depth, device=row.device) * width
        flat = ((row * self.columns + place)[:, None] + depths).ravel()
        scores = self.scores.view(-1).index_select(0, flat)
        reached = (
            (scores.view(-1, self.depth) >= levels.index_select(0, row)[:, None]).ravel().nonzero()[:, 0]
        )
        flat, scores = flat.index_select(0, reached), scores.index_select(0, reached)
        return flat // self.columns, flat % self.columns, scores


class Nearest:
    """Pairs of users and vectors that may be among the nearest, as blocks of rough scores come in."""

    def __init__(self, asked, wanted):
        self.asked, self.wanted, self.total = asked, wanted, int(wanted.sum())
        self.level, self.pairs, self.pending, self.first = None, [], 0, 0

    def add(self, block):
        if self.level is None:
            self.level = self.asked.rivals(self.first_level(block.largest))
        at, column, scores = block.reach(self.level)
        self.pairs.append((at, column + self.first, scores))
        self.pending, self.first = self.pending + len(at), self.first + block.columns
        if self.pending > 4 * self.total:
            self.merge()

    def first_level(self, largest):
        """[b] what at least wanted[b] of a block's rough scores reach; [b, g] the largest of its parts."""
        few = self.wanted <= largest.shape[1] // 2
        best = largest.topk(int((self.wanted * few).max()), dim=1).values
        if not best.shape[1]:
            return torch.full_like(largest[:, 0], lowest(largest.dtype))
        column = (self.wanted - 1).clamp_max(best.shape[1] - 1)
        return best.gather(1, column[:, None])[:, 0].where(few, lowest(largest.dtype))

    def merge(self):
        """What may still be among the nearest: [n] users, increasing, [n] vectors and [n] rough scores."""
        rows, numbers, scores = (torch.cat(part) for part in zip(*self.pairs, strict=True))
        rows, order = rows.sort(stable=True)
        numbers, scores = numbers.index_select(0, order), scores.index_select(0, order)
        may, self.level = among_nearest(rows, scores, self.wanted, self.asked)
        self.pairs, self.pending = [(rows[may], numbers[may], scores[may])], 0
        return self.pairs[0]


def among_nearest(rows, scores, wanted, asked):
    """[n] bool which pairs may be among the wanted[b] nearest of their user, and [b] the scores that takes.

    Args:
        rows: [n] users, increasing; scores: [n] rough ones, such as asked.rivals takes.
    """
    counts = torch.bincount(rows, minlength=len(wanted))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts).index_select(0, rows)
    width = max(int(wanted.max()), int(counts.max()))
    table = scores.new_full((len(wanted), width), lowest(scores.dtype))
    table.view(-1)[rows * width + place] = scores
    best = table.topk(int(wanted.max()), dim=1).values
    level = asked.rivals(best.gather(1, wanted[:, None] - 1)[:, 0])
    return scores >= level.index_select(0, rows), level


def lowest(dtype):
    return (torch.finfo if dtype.is_floating_point else torch.iinfo)(dtype).min
