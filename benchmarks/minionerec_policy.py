"""Rewards, advantages and policy losses of MiniOneRec's own trainer beside ours (benchmarks/vectors.py).

Theirs looks an item up by its id, so that of items that share one the last counts, and a target by its
prompt, so that equal histories overwrite each other: ours is held to the sample's own target.
"""

import numpy as np
import torch

from benchmarks.checks import Check, difference
from pixelrec_train.losses.policy import group_advantages, policy_loss
from pixelrec_train.rl.rewards import Groups, Rewards
from pixelrec_train.semantic_id.trie import Trie


def checks(case):
    """Every Check; case: minionerec.Case."""
    yield from of_rewards(case.json("expected_rewards.json"))
    yield from of_losses(case.json("expected_policy_loss.json"))


def of_rewards(told):
    named, count = told["item_sid"], told["num_generations"]
    ids = sorted(set(named))
    trie = Trie.of(np.array([[ids.index(sid)] for sid in named], np.int32))
    leaf = {sid: int(trie.leaf_of[named.index(sid)]) for sid in ids}
    target = np.array([named.index(group["target_by_sample"].strip()) for group in told["groups"]])
    leaves = np.array([[leaf[sid.strip()] for sid in group["completions"]] for group in told["groups"]])
    groups = Groups([np.zeros(1, int)] * len(target), target, leaves, trie)
    _, parts = Rewards(dict.fromkeys(("rule", "ndcg", "semantic"), 1.0), np.array(told["item_embedding"]))(
        groups
    )
    ranking, _ = Rewards({"ranking": 1.0})(groups)
    for name, theirs in (("rule", "rule_reward"), ("ndcg", "ndcg_rule_reward")):
        yield Check(f"reward {name}", difference(parts[name].ravel(), told["rewards"][theirs]), 1e-6)
    expected = np.array(told["rewards"]["semantic_reward"]).reshape(-1, count)
    alone = np.array([[named.count(named[item]) == 1 for item in row] for row in groups.items])
    alone &= np.array([named.count(named[item]) == 1 for item in target])[:, None]
    error = difference(parts["semantic"][alone], expected[alone])
    yield Check("reward semantic, of ids that one item has", error, 1e-6)
    yield Check("reward ranking", difference(ranking.ravel(), told["ranking = rule + ndcg"]), 1e-6)
    advantages = group_advantages(torch.from_numpy(ranking))
    yield Check("advantages of the reward ranking", difference(advantages.ravel(), told["advantages"]), 1e-6)


def of_losses(told):
    lengths = torch.tensor(told["lengths"])
    named = ("log_probabilities", "reference", "advantages")
    new, reference, advantages = (torch.tensor(told[name], dtype=torch.float64) for name in named)
    real = torch.arange(new.shape[1]) < lengths[:, None]
    of = real.nonzero()[:, 0]
    for case in told["cases"]:
        own = new.clone().requires_grad_()
        found = policy_loss(
            own[real], advantages[of], of, len(lengths), None, reference[real], case["mode"], case["beta"]
        )
        loss = found.total / found.weight
        loss.backward()
        kl = torch.zeros_like(advantages).index_add(0, of, found.kl) / lengths
        name = f"{case['mode']}, beta {case['beta']:g}"
        yield Check(f"{name}: loss", difference([loss.item()], [case["loss"]]), 1e-6)
        yield Check(f"{name}: divergence", difference([kl.mean().item()], [case["kl"]]), 1e-6)
        yield Check(f"{name}: gradient", difference(own.grad.ravel(), np.ravel(case["gradient"])), 1e-6)
