"""Which rank is this, and of how many? Each launcher says it in its own names; torch has one set of them.

torchrun, deepspeed, accelerate   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT
srun                              SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_STEP_NODELIST, …
mpirun of Open MPI                OMPI_COMM_WORLD_RANK, …_SIZE, …_LOCAL_RANK, …_LOCAL_SIZE
mpirun of MPICH and Intel MPI     PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
PyTorchJob of Kubernetes          RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT of pods with one process each

Sources: the manuals of srun, Open MPI (environment variables), MPICH's Hydra, Kubeflow's training operator.
"""

import re
import shlex

from pixelrec_train.errors import InputError

OF_TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
NEEDED = ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
MPI = {
    "mpirun of Open MPI": (
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpirun of MPICH or Intel MPI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}  # fmt: skip
PORT = "29500"


def named_as_torch(environment):
    """{RANK: …} to add to the environment so that it has all of OF_TORCH; {} where no launcher was at work.

    Raises:
        InputError: a launcher has said a part of it alone, or what cannot be.
    """
    if found := found_in(environment):
        check_numbers(found)
    return found


def found_in(environment):
    if "RANK" in environment:
        return of_pod(environment)
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environment:
        return of_srun(environment)
    for launcher, names in MPI.items():
        if environment.get(names[1], "1") != "1":
            return of_mpirun(launcher, names, environment)
    if "PMIX_RANK" in environment and "SLURM_JOB_ID" not in environment:
        raise InputError(
            f"PMIX_RANK={environment['PMIX_RANK']} says which rank this is, but nothing of how many. "
            f"Start it with torchrun, deepspeed, srun or mpirun, or set {', '.join(OF_TORCH)}."
        )
    return {}


def check_numbers(found):
    """Raises InputError where a rank, a number of ranks or the port is none."""
    numbers = {}
    for name in (name for name in OF_TORCH if name in found and name != "MASTER_ADDR"):
        if not found[name].isdecimal():
            raise InputError(f"{name} of the environment must be a number, got {found[name]!r}.")
        numbers[name] = int(found[name])
    for place, count in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if count in numbers and numbers[place] >= numbers[count]:
            raise InputError(
                f"the environment has {place}={found[place]} of {count}={found[count]}; ranks count from 0. "
                f"Start all ranks with the same number of them."
            )
    if not 0 < numbers["MASTER_PORT"] < 65536:
        raise InputError(f"MASTER_PORT must be from 1 to 65535, got {found['MASTER_PORT']}.")


def of_pod(environment):
    """A pod of a PyTorchJob has one process, and is told all but that."""
    if "KUBERNETES_SERVICE_HOST" in environment and not {"LOCAL_RANK", "LOCAL_WORLD_SIZE"} & {*environment}:
        environment = {**environment, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    if absent := [name for name in NEEDED if name not in environment]:
        raise InputError(
            f"the environment has RANK={environment['RANK']}, but no {', '.join(absent)}: left over from "
            f"another program? unset RANK WORLD_SIZE trains on one rank; deepspeed and torchrun set them all."
        )
    return {name: environment[name] for name in OF_TORCH if name in environment}


def of_srun(environment):
    """The first host of the step is where ranks meet, at a port that follows from the job's number."""
    node = int(environment.get("SLURM_NODEID", 0))
    tasks = tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", environment["SLURM_STEP_NUM_TASKS"]))
    hosts = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
    if not hosts and len(tasks) > 1 and "MASTER_ADDR" not in environment:
        raise InputError(
            "srun started this rank on several machines, but SLURM_STEP_NODELIST does not say which. Set "
            "MASTER_ADDR to the first of them."
        )
    job, step = (int(environment.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    found = {
        "RANK": environment["SLURM_PROCID"], "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(tasks[node % len(tasks)]),
        "MASTER_ADDR": first_host(hosts) if len(tasks) > 1 else "127.0.0.1",
        "MASTER_PORT": str(20000 + (16 * job + step) % 12000),  # below those that systems give away
    }  # fmt: skip
    return found | {name: environment[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in environment}


def tasks_per_node(text):
    """ "4(x2),3" -> [4, 4, 3]"""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in parts for _ in range(int(times or 1))]


def first_host(nodes):
    """ "gpu[07-09,12],cpu1" -> "gpu07" """
    host = re.match(r"[^,\[]*(?:\[(?P<first>\d+)[^\]]*\](?P<behind>[^,]*))?", nodes)
    return re.split(r"[,\[]", nodes)[0] + (host["first"] or "") + (host["behind"] or "")


def of_mpirun(launcher, names, environment):
    rank, size, local_rank, local_size = (environment.get(name) for name in names)
    if None in (rank, local_rank):
        absent = names[0] if rank is None else names[2]
        raise InputError(f"{launcher} started this rank, but {absent} is not set. Set {', '.join(OF_TORCH)}.")
    local_size = local_size or size
    if "MASTER_ADDR" not in environment and local_size != size:
        raise InputError(
            f"{launcher} started {size} ranks on several machines, and none knows where they meet. Hand on "
            f"the first: mpirun -x MASTER_ADDR=… (-genv MASTER_ADDR … of MPICH)."
        )
    return {
        "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size,
        "MASTER_ADDR": environment.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": environment.get("MASTER_PORT", PORT),
    }  # fmt: skip


def through_pdsh(word):
    """What to tell DeepSpeed's launcher so that a rank on another machine gets this word, also an empty one.

    pdsh puts a host's name for %h, and joins all words for a shell to read; DeepSpeed puts double quotes
    around those with a space.
    """
    word = word.replace("%", "%%")
    return re.sub(r"([\\$`])", r"\\\1", word) if " " in word else shlex.quote(word)
