"""One rank of the doctor's launch: it meets the others and adds numbers with them."""

import time

from pixelrec_train import distributed
from pixelrec_train.run import rendezvous


def main():
    started = time.monotonic()
    rendezvous.initialise(timeout_minutes=1)
    met = time.monotonic()
    ranks = distributed.world_size()
    mean = distributed.mean_over_ranks({"rank": distributed.rank()})["rank"]
    if mean != (ranks - 1) / 2:
        raise ArithmeticError(f"the mean of ranks 0 … {ranks - 1} came out as {mean}")
    if distributed.rank() == 0:
        print(
            f"doctor: {ranks} ranks on {distributed.device().type} met in {met - started:.1f} s, "
            f"all-reduce {time.monotonic() - met:.2f} s",
            flush=True,
        )
    rendezvous.finish()


if __name__ == "__main__":
    main()
