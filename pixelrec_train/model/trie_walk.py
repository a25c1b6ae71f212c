"""Down the trie of the catalogue with a causal LM: a prompt is read once per user, its paths share its cache.

A path is not a row of its own: the K paths of a user stand side by side in the user's row, each seeing the
prompt and the tokens of its own. So nothing is copied when paths are chosen, and the cache never moves.

Shapes: B users, P tokens in the cache, K paths, H hidden width, L levels, V_l codes of a level.
"""

import torch

from pixelrec_train.model.reading import check_window, forward
from pixelrec_train.semantic_id.codes import ABSENT

NORMALISED_OVER = ("full", "level")
FEW_OF = 64  # codes of a level to each of a node's, from which on a node's are scored alone


def walk(decoder, rows, prefix, choose):
    """Go down the trie level by level from what has been read; what is chosen shares the cache, and grows it.

    Args:
        prefix: reading.Prefix of each user, up to and with the token in front of the first code.
        choose: the level, [B, K] nodes there (at first the root alone), [B, K, H] hidden states in front of
            their next code -> [B, K'] each: which of the K goes on, its code, its node on the next level.

    Returns:
        [B, K] nodes behind the last level: leaves.
    """
    real, hidden, cache = prefix.real, prefix.hidden, prefix.cache
    node = torch.zeros(len(real), 1, dtype=torch.long, device=real.device)
    path = real.new_empty(*node.shape, 0)  # [B, K, tokens behind the prompt] those of its own
    for level, tokens in enumerate(rows):
        parent, code, node = choose(level, node, hidden)
        if level + 1 < len(rows):
            token = tokens[code.clamp(min=0)]  # what is read behind a complete id does not matter
            path = path.gather(1, parent[..., None].expand(-1, -1, path.shape[2]))
            itself = torch.eye(token.shape[1], dtype=torch.bool, device=path.device)
            path = torch.cat([path, itself.expand(len(path), -1, -1)], dim=2)
            sees = torch.cat([real[:, None].expand(-1, token.shape[1], -1), path], dim=2)
            position = (prefix.length + level).expand_as(token)
            hidden = forward(decoder, decoder.embed(token), sees, position, cache)
    return node


def continuations(decoder, trie, rows, level, node, hidden, normalised_over, log_norm=None):
    """[B, K, F] each of K nodes' edges: codes, nodes behind them, log-probabilities of the codes, and whether
    there is an edge. The end of an id that is the beginning of others is as a code that is certain.

    log_norm: level, hidden -> [B, K], in place of the decoder's.
    """
    codes, nodes, is_child = trie.children(level, node)
    tokens, code = rows[level], codes.clamp(min=0)
    if normalised_over == "level":
        logits = decoder.head(hidden, tokens)
        norm, logits = logits.float().logsumexp(-1), logits.gather(2, code)
    else:
        norm = log_norm(level, hidden) if log_norm else decoder.log_norm(hidden)
        logits = logits_of(decoder, hidden, tokens, code)
    gain = logits.float() - norm[..., None]
    return codes, nodes, gain.masked_fill(codes == ABSENT, 0.0), is_child


def logits_of(decoder, hidden, tokens, code):
    """[B, K, F] those of each node's codes alone, where they are so few that a level's product is dearer."""
    if code.shape[2] * FEW_OF > len(tokens):
        return decoder.head(hidden, tokens).gather(2, code)
    at_once = max(1, len(tokens) // hidden.shape[2])  # no more memory than the level's scores
    return torch.cat([decoder.head(hidden, tokens[some]) for some in code.split(at_once, dim=2)], dim=2)


def check(decoder, trie, rows, tokens, paths, normalised_over):
    """tokens: P, those that stand in front of the first code in any row."""
    if len(rows) != trie.levels:
        raise ValueError(f"rows of {len(rows)} levels, but the trie has {trie.levels}")
    if normalised_over not in NORMALISED_OVER:
        raise ValueError(f"normalised_over must be one of {NORMALISED_OVER}, got {normalised_over!r}")
    if paths < 1:
        raise ValueError(f"at least one beam or draw is needed, got {paths}")
    check_window(decoder, tokens + trie.levels - 1)
