"""Down the trie of the catalogue with a causal LM: a prompt is read once per user, its paths share its cache.

A path is not a row of its own: the K paths of a user stand side by side in the user's row, each seeing the
prompt and the tokens of its own. So nothing is copied when paths are chosen, and the cache never moves.

Shapes: B users, P tokens in the cache, K paths, H hidden width, L levels, V_l codes of a level.
"""

import torch

from pixelrec_train.model.reading import check_window, forward
from pixelrec_train.semantic_id.codes import ABSENT

NORMALISED_OVER = ("full", "level")


def walk(decoder, rows, prefix, choose):
    """Go down the trie level by level from what has been read; what is chosen shares the cache, and grows it.

    Args:
        prefix: reading.Prefix of each user, up to and with the token in front of the first code.
        choose: the level, [B, K] nodes there (at first the root alone), [B, K, H] hidden states in front of
            their next code, [B, K, V_l] logits of it -> [B, K'] each: which of the K goes on, its code, its
            node on the next level.

    Returns:
        [B, K] nodes behind the last level: leaves.
    """
    real, hidden, cache = prefix.real, prefix.hidden, prefix.cache
    node = torch.zeros(len(real), 1, dtype=torch.long, device=real.device)
    path = real.new_empty(*node.shape, 0)  # [B, K, tokens behind the prompt] those of its own
    for level, tokens in enumerate(rows):
        parent, code, node = choose(level, node, hidden, decoder.head(hidden, tokens))
        if level + 1 < len(rows):
            token = tokens[code.clamp(min=0)]  # what is read behind a complete id does not matter
            path = path.gather(1, parent[..., None].expand(-1, -1, path.shape[2]))
            itself = torch.eye(token.shape[1], dtype=torch.bool, device=path.device)
            path = torch.cat([path, itself.expand(len(path), -1, -1)], dim=2)
            sees = torch.cat([real[:, None].expand(-1, token.shape[1], -1), path], dim=2)
            position = (prefix.length + level).expand_as(token)
            hidden = forward(decoder, decoder.embed(token), sees, position, cache)
    return node


def continuations(decoder, trie, level, node, hidden, logits, normalised_over):
    """[B, K, F] each of K nodes' edges: codes, nodes behind them, log-probabilities of the codes, and whether
    there is an edge. The end of an id that is the beginning of others is as a code that is certain."""
    norm = decoder.log_norm(hidden) if normalised_over == "full" else logits.float().logsumexp(-1)
    codes, nodes, is_child = trie.children(level, node)
    gain = logits.gather(2, codes.clamp(min=0)).float() - norm[..., None]
    return codes, nodes, gain.masked_fill(codes == ABSENT, 0.0), is_child


def check(decoder, trie, rows, tokens, paths, normalised_over):
    """tokens: P, those that stand in front of the first code in any row."""
    if len(rows) != trie.levels:
        raise ValueError(f"rows of {len(rows)} levels, but the trie has {trie.levels}")
    if normalised_over not in NORMALISED_OVER:
        raise ValueError(f"normalised_over must be one of {NORMALISED_OVER}, got {normalised_over!r}")
    if paths < 1:
        raise ValueError(f"at least one beam or draw is needed, got {paths}")
    check_window(decoder, tokens + trie.levels - 1)
