"""How many requests a second does scripts/serve.py answer, and how soon?

python benchmarks/serving.py --checkpoint results/demo/best_model --connections 8,12,16 --seconds 10

Starts the server as a process and lets wrk (Debian: apt-get install wrk) ask /recommend from another one:
histories of 3 to 15 items drawn at random, 10 items wanted; every connection asks again as soon as it is
answered. Both share the cores, of which --cores are taken. Exits with 1 unless with some number of
connections it answers 300 requests a second and 99 % of them within 50 ms, all with status 200.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402

GOAL_RATE, GOAL_P99 = 300, 50.0  # requests/s, ms
LUA = """
local ids = {%s}
request = function()
  local history = {}
  for n = 1, math.random(3, 15) do history[n] = ids[math.random(#ids)] end
  local body = '{"k":10,"history":["' .. table.concat(history, '","') .. '"]}'
  return wrk.format("POST", "/recommend", {["content-type"] = "application/json"}, body)
end
"""
MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def main(argv=None):
    options = parse(argv)
    if not shutil.which("wrk"):
        print("error: wrk is not installed. Debian: apt-get install wrk.", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # the children's as well
    print(f"{machine()}; {options.cores} of them used; load before: {os.getloadavg()[0]:.1f}", flush=True)
    server, url = started(options.checkpoint)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(LUA % ", ".join(json.dumps(item) for item in items_of(url)))
            script.flush()
            load(url, script.name, 4, 2)  # warm
            good = [
                judged(connections, *load(url, script.name, connections, options.seconds, server.pid))
                for connections in options.connections
            ]
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    print(f"SIGTERM: exit status {status}")
    return 0 if any(good) and status == 0 else 1


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--checkpoint", default="results/demo/best_model")
    parser.add_argument(
        "--connections", type=lambda text: [int(n) for n in text.split(",")], default=[8, 12, 16]
    )
    parser.add_argument("--seconds", type=int, default=10, help="for each number of connections")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args(argv)


def started(checkpoint):
    """(process, URL) of a server that has said where it listens."""
    command = [sys.executable, str(ROOT / "scripts/serve.py"), "--checkpoint", checkpoint, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.search(r"serving (http://\S+/)", line):
            return server, found[1]
    raise SystemExit(f"error: {' '.join(command)} ended with status {server.wait()}.")


def items_of(url):
    """Up to 1,000 item ids."""
    found, more = [], True
    while more and len(found) < 1000:
        with urllib.request.urlopen(f"{url}items?limit=100&offset={len(found)}") as answer:
            page = json.load(answer)
        found, more = found + [item["item_id"] for item in page["items"]], page["more"]
    return found


def load(url, script, connections, seconds, process=None):
    """(requests/s, {percentile: ms}, what went wrong, CPU ms of the server per request)"""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url]
    before = cpu_seconds(process)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(process) - before
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    asked = int(re.search(r"(\d+) requests in", said)[1])
    places = {
        int(percent): float(number) * MS[unit]
        for percent, number, unit in re.findall(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)\b", said, re.M)
    }
    wrong = re.findall(r"Non-2xx or 3xx responses: .*|(?:connect|read|write|timeout) [1-9]\d*", said)
    return rate, places, wrong, 1000 * used / max(asked, 1)


def cpu_seconds(process):
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def judged(connections, rate, places, wrong, cpu):
    """Prints a line, and says whether the goal is met."""
    good = rate >= GOAL_RATE and places[99] <= GOAL_P99 and not wrong
    print(
        f"{connections:>3} connections: {rate:5.0f} requests/s, p50 {places[50]:5.1f} ms, p90 "
        f"{places[90]:5.1f} ms, p99 {places[99]:5.1f} ms, {', '.join(wrong) or 'all answered'}, "
        f"{cpu:.2f} CPU ms each, load {os.getloadavg()[0]:.1f}: {'ok' if good else 'missed'}",
        flush=True,
    )
    time.sleep(1)
    return good


if __name__ == "__main__":
    sys.exit(main())
