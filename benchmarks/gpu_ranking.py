"""On a GPU: semantic ids decoded under a trie of the catalogue, and a catalogue ranked for many users."""

import importlib.util

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import inputs, peers
from benchmarks.decoding import ALIGNED, CODEBOOK, LEVELS, SMALL, WORDS, prompts
from benchmarks.evaluation import Ranked, twin_is_next, with_twins
from benchmarks.gpu_measure import free, head, line, precision, qwen3, row, timed
from pixelrec_train import distributed
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.libraries import import_faiss
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.reading import Decoder
from pixelrec_train.semantic_id.trie import Trie

USERS = 32  # of a search
BEAMS = (50, 20, 128, 512)  # the first is the goal's
WIDTHS = (64, 1024)


def decoding(options):
    """Users a second at V = 176k, and against transformers' generate on fewer users."""
    tiny, device = options.shape == "tiny", distributed.device()
    codebook, words = (SMALL["codebook"], SMALL["words"]) if tiny else (CODEBOOK, WORDS)
    items, prompt = (SMALL["items"], SMALL["prompt"]) if tiny else (20_000, 160)
    codes = np.random.default_rng(0).integers(0, codebook, (items, LEVELS))
    rows = torch.arange(words, words + LEVELS * codebook, device=device).split(codebook)
    vocabulary = -(-(words + LEVELS * codebook + 2) // ALIGNED) * ALIGNED
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(qwen3(options.shape, vocabulary), dtype=precision()).eval()
    decoder, trie = Decoder.of(model), Trie.of(codes).to(device)
    head(f"{vocabulary:,} words, prompts of {prompt}")
    for users, beams in ((2 if tiny else USERS, 5 if tiny else beams) for beams in BEAMS):
        asked = decoder, trie, rows, *(x.to(device) for x in prompts(users, prompt, words)), beams
        try:
            _, milliseconds, peak = timed(lambda asked=asked: beam_search(*asked), options.steps)
        except torch.OutOfMemoryError:
            print(f"{users} users x {beams} beams: out of memory", flush=True)
            continue
        finally:
            free()
        rate = users / milliseconds * 1000
        line(f"{users} users x {beams} beams", milliseconds, rate, None, peak, "per s: users")
        what = f"{users} users x {beams} beams, {beams * rate:,.0f} beams/s, {vocabulary:,} words"
        row(f"gpu_decoding_{beams}", rate, None, "users/s", "value ≥ 200" if beams == BEAMS[0] else "", what)
        if tiny:
            break
    asked = *(x.to(device) for x in prompts(4, prompt, words)), 5 if tiny else 20
    ours = timed(lambda: beam_search(decoder, trie, rows, *asked), 3, 1)[1]
    first = np.array([int(level[0]) for level in rows])
    theirs = timed(lambda: peers.generate(model, codes + first, *asked), 1, 1)[1]
    note = f"ours {ours:.1f} ms"
    line("4 users, generate with a prefix processor", theirs, 4 / theirs * 1000, None, 0, note)
    row("gpu_decoding_vs_generate", ours, theirs, "ms", "ratio ≥ 10", f"4 users x {asked[-1]} beams")


def ranking(options):
    """Users a second, seen items left out, by each way of finding the nearest; a user is an item's vector."""
    users, items = (60, 3000) if options.shape == "tiny" else (10_000, 400_000)
    histories, device = inputs.shipped().histories(users, items), distributed.device()
    held_out = twin_is_next(histories, items)
    head(f"{items:,} items x {users:,} users")
    for width in WIDTHS[:1] if options.shape == "tiny" else WIDTHS:
        catalogue, found = with_twins(items, width), {}
        table = torch.from_numpy(catalogue).to(device)

        def encode(histories, times=None, table=table):
            return table[[int(history[-1]) for history in histories]]

        for way in ("full scores", "exact", *faiss_at(width)):
            how = Ranked(retrieval="faiss" if way == "faiss" else "exact")

            def once(way=way, how=how, encode=encode, catalogue=catalogue):
                if way == "full scores":
                    most, block = max(how.topk), how.eval_batch_size
                    return peers.places(encode, catalogue, held_out, most, block, device)
                return judge(TwoTower(encode, catalogue, how.retrieval), held_out, how).places

            places, milliseconds, peak = timed(once, 1, 0 if way == "faiss" else 1)
            found[way] = places, milliseconds
            line(f"D {width}, {way}", milliseconds, users / milliseconds * 1000, None, peak, "per s: users")
            same = float((places == found["full scores"][0]).mean())
            if same < 0.998:  # where neighbours differ by rounding only, their order is anyone's
                raise AssertionError(f"{way} finds only {same:.1%} of the places of the full scores")
            if way != "full scores":
                what = f"{items:,} items x {users:,} users, D {width}, index included; {peak:.1f} GB"
                what += f"; FAISS on {gpus_of_faiss()} GPUs" if way == "faiss" else ""
                name, theirs = f"gpu_ranking_{way}_{width}", found["full scores"][1]
                row(name, milliseconds, theirs, "ms", "ratio ≥ 1", what)
        table = encode = None
        free()


def faiss_at(width):
    """["faiss"] where it is installed; on CPUs it takes minutes for wide vectors."""
    gpus = gpus_of_faiss()
    return ["faiss"] if gpus or gpus == 0 and width == WIDTHS[0] else []


def gpus_of_faiss():
    """How many it computes on; None where it is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return None
    count = getattr(import_faiss(), "get_num_gpus", None)
    return count() if count else 0
