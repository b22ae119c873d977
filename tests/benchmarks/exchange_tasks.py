"""The tasks of `beside` that are whole federations: ours, its limit and the peers' own deployments take turns."""
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE / "peers/exchange"
MEMORY = pathlib.Path("/dev/shm")

# Rounds of ours and the peers'; the limit is the median of so many repeats.
TASKS = {"exchange": {"network": "large", "sites": 10, "rounds": 4, "peer_rounds": 3, "limit_repeats": 1},
         "tiny_rounds": {"network": "tiny", "sites": 3, "rounds": 20, "peer_rounds": 20, "limit_repeats": 21}}
# What the peers are run with; a name's first word is their folder. FLARE's waits are settings of its users.
WAYS = {"exchange": {"nvflare": [], "flower": []},
        "tiny_rounds": {"nvflare": [], "nvflare, polling every 10 ms": ["--poll", "0.01"], "flower": []}}


def last_line(command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


class Turns:
    def __init__(self, name, args, work):
        self.name, self.task, self.args, self.work = name, TASKS[name], args, work
        self.ours, self.limits, self.peers = [], [], {}

    def run(self):
        """Ours before and after each peer."""
        self.take_limit_and_ours()
        python = self.args.peers and self.args.peers / "bin/python"
        for way, options in WAYS[self.name].items() if python else ():
            program = way.split(",")[0]
            if self.args.only and program not in self.args.only:
                continue
            check = self.ours[-1]["check"]
            command = [python, PEERS / program / "run.py", self.work / "peer", "--floats", check["floats"],
                       "--arrays", check["arrays"], "--sites", self.task["sites"], "--rounds", self.task["peer_rounds"]]
            try:
                self.peers.setdefault(way, []).append(last_line(command + options))
            except RuntimeError as problem:
                print(f"left out: {way}: {problem}", file=sys.stderr)
            shutil.rmtree(self.work / "peer", ignore_errors=True)
            self.take_limit_and_ours()

    def take_limit_and_ours(self):
        task, programs = self.task, self.args.build / "bin"
        network = 125_000_000 if task["network"] == "large" else 1024
        self.limits.append(last_line([programs / "exchange_limit", self.work, network, task["sites"], task["limit_repeats"]]))
        command = [HERE / "exchange", "--network", task["network"], "--sites", task["sites"], "--rounds", task["rounds"],
                   "--build", self.args.build, "--work", self.work / "ours"]
        # The peers' sites have no files: theirs are not to be in the way of the server's on this one disk.
        if MEMORY.is_dir():
            command += ["--site-files", MEMORY / self.work.name]
        self.ours.append(last_line(command))
        shutil.rmtree(self.work / "ours")
        print(f"{self.name}: ours {self.ours[-1]['median_round_s']} s, limit {self.limits[-1]['round_s']} s", file=sys.stderr)


def compare(name, args, conditions):
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        turns = Turns(name, args, pathlib.Path(scratch))
        for _ in range(args.repeats or 1):
            turns.run()
    median = lambda figures, key="median_round_s": round(statistics.median(f[key] for f in figures), 4)
    ours, limit = median(turns.ours), median(turns.limits, "round_s")
    peers = {way: median([f for f in figures if "median_round_s" in f]) for way, figures in turns.peers.items()
             if any("median_round_s" in f for f in figures)}
    return {"name": name, "ours": ours, "peers": peers,
            "ratio": round(min(peers.values()) / ours, 2) if peers else None,
            "limit": limit, "ratio_to_limit": round(ours / limit, 2), "unit": "s",
            "conditions": conditions | {"all_of_ours": turns.ours, "all_limits": turns.limits,
                                        "all_of_the_peers": turns.peers}}
