#!/usr/bin/env python3
"""Trains a table until it is large, on two servers and two workers of this machine, and asks: how fast, how many bytes, and
does a run that is killed end as one that is not? Only Python's own modules; nothing of varscope needs this file.

  bench/big_table.py                     52 million rows of 16, Adagrad: 16 GB of memory, 8 GB of disk a save, 5 minutes
  bench/big_table.py --incremental       the run that is killed saves what has changed (checkpoint.incremental)
  bench/big_table.py --smoke             a few thousand rows

1. Trains, kills all ranks (SIGKILL) behind the save of step `steps` - `every`, and resumes on three servers to the step of the
   next save: `steps`, or a later one where the save took so long.
2. Trains as many steps without an end in between, saving all rows: the hash of all values must be the same, else it ends with
   code 1.
3. Grows a table by itself to as many rows as a server had: bytes a row and pauses (bench/sparse, E6 and E7).
"""
import argparse
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
WORKERS, FEATURES = 2, 26
MIB = 1 << 20

JOB = """job: {{name: big_table, run_dir: {run_dir}}}
data: {{train: {{type: synthetic, generate: ctr, samples: 1000000000, features: {features}, vocabulary: {vocabulary}, exponent: 1.05, numbers: 13}}}}
model:
  loss: sigmoid_cross_entropy
  layers:
    - {{type: embedding, scope: rows, input: words, units: 16, combiner: sum, table: {{ids: uint64}}, name: rows}}
    - {{type: concat, inputs: [rows, numbers]}}
    - {{type: dense, scope: logit, units: 1}}
optimizer: {{type: adagrad, learning_rate: 0.1}}
cluster: {{logical_workers: {workers}}}
train: {{batch: {batch}, max_steps: 1000000, metrics: []}}
checkpoint: {{every_steps: {every}, keep: 2, timeout_s: 600}}
"""


def die(why):
    print(f"big_table.py: {why}", file=sys.stderr)
    sys.exit(1)


class Run:
    """A job under mpirun in a folder of its own."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        os.makedirs(folder)
        self.run_dir = os.path.join(folder, "run")
        self.config = os.path.join(folder, "job.yaml")
        with open(self.config, "w", encoding="ascii") as f:
            f.write(JOB.format(run_dir=self.run_dir, features=FEATURES, vocabulary=options.vocabulary, workers=WORKERS,
                               batch=options.batch, every=options.every))
        self.process, self.resident = None, {}

    def start(self, servers, arguments=()):
        environment = dict(os.environ)
        if os.getuid() == 0:
            environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        environment.setdefault("OMPI_MCA_hwloc_base_binding_policy", "none")
        command = [self.options.mpirun, "--quiet", "--oversubscribe", "-n", str(servers + WORKERS), self.options.program,
                   "train", self.config, "--set", f"cluster.servers={servers}", *arguments]
        self.servers, self.resident = servers, {}
        with open(os.path.join(self.folder, "output"), "a", encoding="ascii") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    def events(self, name=None):
        try:
            with open(os.path.join(self.run_dir, "metrics.jsonl"), encoding="ascii") as f:
                lines = [line for line in f if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [e for e in map(json.loads, lines) if name in (None, e["event"])]

    def ranks(self):
        """Process ids of the ranks, by rank: mpirun's children, which know their number."""
        found = {}
        for file in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(file, encoding="utf-8", errors="replace") as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
                if parent != self.process.pid:
                    continue
                with open(file.replace("/stat", "/environ"), "rb") as f:
                    number = re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", f.read())
                if number:
                    found[int(number.group(1))] = int(file.split("/")[2])
            except (OSError, IndexError):  # it has just ended
                continue
        return found

    def look(self):
        """Keeps what the servers, which are the first ranks, have had in memory at most."""
        for rank, pid in self.ranks().items():
            try:
                with open(f"/proc/{pid}/status", encoding="ascii") as f:
                    kib = re.search(r"VmHWM:\s*(\d+)", f.read())
            except OSError:
                continue
            if rank < self.servers and kib:
                self.resident[rank] = int(kib.group(1)) * 1024

    def output(self):
        with open(os.path.join(self.folder, "output"), encoding="utf-8") as f:
            return f.read()

    def wait(self, limit_s):
        """To the end; dies when that is no good one."""
        deadline = time.monotonic() + limit_s
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                die(f"a run took over {limit_s} s:\n{self.output()}")
            self.look()
            time.sleep(self.options.poll_s)
        if self.process.returncode != 0:
            die(f"a run ended with code {self.process.returncode}:\n{self.output()}")
        return self.events("finish")[-1]

    def wait_for(self, what, is_there, limit_s):
        deadline = time.monotonic() + limit_s
        while not is_there():
            if self.process.poll() is not None:
                die(f"a run ended, and there was no {what}:\n{self.output()}")
            if time.monotonic() > deadline:
                self.kill()
                die(f"no {what} in {limit_s} s:\n{self.output()}")
            time.sleep(self.options.poll_s)

    def wait_for_save(self, step, limit_s):
        self.wait_for(f"save of step {step}", lambda: any(e["step"] >= step for e in self.events("checkpoint")), limit_s)

    def wait_for_start(self, attempt, limit_s):
        self.wait_for(f"start {attempt}", lambda: any(e["attempt"] == attempt for e in self.events("start")), limit_s)

    def kill(self):
        ranks = self.ranks().values()
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(60)
        return len(ranks)

    def facts(self):
        """(rows, bytes of a row) of the newest checkpoint."""
        text = subprocess.run([self.options.program, "checkpoint", "inspect", os.path.join(self.run_dir, "checkpoints")],
                              check=True, capture_output=True, text=True).stdout
        row = re.search(r"^rows/embeddings +uint64 +(\d+) +\d+ of \d+ +\d+ +(\d+)", text, re.M)
        if not row:
            die(f"checkpoint inspect shows no table:\n{text}")
        return int(row.group(1)), int(row.group(2))


def say_saves(what, saves):
    for e in saves:
        print(f"{what:<24} step {e['step']:>6}  {e['bytes'] / MIB:>9.1f} MiB  written in {e['total_s']:.2f} s  "
              f"training stopped {e['stall_s'] * 1e3:.1f} ms  updates took {e['copy_s'] * 1e3:.1f} ms longer")


def whole_run(options, steps):
    run = Run(options, os.path.join(options.folder, "whole"))
    run.start(2, ["--set", f"train.max_steps={steps}"])
    finish = run.wait(options.limit_s)
    rows, row_bytes = run.facts()
    print(f"rows                     {rows:,} of {row_bytes} bytes after {steps} steps; {rows / finish['seconds']:,.0f} new ones/s, "
          f"{finish['samples_per_s'] * FEATURES:,.0f} looked up and updated/s")
    print(f"samples                  {finish['samples_per_s']:,.0f}/s in {finish['seconds']:.1f} s")
    print(f"memory of the servers    {sum(run.resident.values()) / rows:.1f} bytes a row, resident at most, with all else that they have "
          f"and the copies that saves took")
    say_saves("save of all rows", run.events("checkpoint"))
    shutil.rmtree(run.folder)
    return finish["values_hash"], rows


def killed_run(options):
    """(hash, steps)."""
    run = Run(options, os.path.join(options.folder, "killed"))
    more = ["--set", "checkpoint.incremental=true"] if options.incremental else []
    run.start(2, more)
    run.wait_for_save(options.steps - options.every, options.limit_s)
    killed = run.kill()
    last = max(int(d.rsplit("-", 1)[1]) for d in glob.glob(os.path.join(run.run_dir, "checkpoints/step-*")))
    print(f"killed                   {killed} ranks behind the save of step {last}")
    say_saves("save before the kill", run.events("checkpoint"))
    began = time.time()
    run.start(3, more + ["--set", f"train.max_steps={last + options.every}", "--resume"])
    run.wait_for_start(attempt=2, limit_s=options.limit_s)
    print(f"resumed on 3 servers     {time.time() - began:.1f} s from mpirun until it trained")
    finish = run.wait(options.limit_s)
    start = run.events("start")[-1]
    if start["step"] != last:
        die(f"the run went on from step {start['step']}, though step {last} was saved")
    say_saves("save after it", [e for e in run.events("checkpoint") if e["attempt"] > 1])
    shutil.rmtree(run.folder)
    return finish["values_hash"], finish["step"]


def say_growth(options, rows):
    rows = max(rows // 2, 65536)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "figures.json")
        subprocess.run([options.sparse, "--only", "E6,E7", "--trials", "1", "--growth-rows", str(rows), "--json", file],
                       check=True, stdout=subprocess.DEVNULL)
        with open(file, encoding="ascii") as f:
            for figure in json.load(f):
                print(f"to {rows:,} rows: {figure['what']}: {figure['ratio']['median']:.3g} {figure['unit']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.path.join(HERE, "../build/release")
    parser.add_argument("--program", default=os.path.join(build, "bin/varscope"))
    parser.add_argument("--sparse", default=os.path.join(build, "bench/sparse"), help="for the third part")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--dir", help="where checkpoints go; a folder of the system's for such without it")
    parser.add_argument("--vocabulary", type=int, default=20000000, help="of each of 26 fields")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=500, help="steps between saves")
    parser.add_argument("--limit-s", type=float, default=1800, help="the longest that one run may take")
    parser.add_argument("--incremental", action="store_true", help="the killed run saves what has changed")
    parser.add_argument("--smoke", action="store_true", help="the smallest size: does it run at all?")
    options = parser.parse_args()
    options.poll_s = 0.5
    if options.smoke:
        options.vocabulary, options.batch, options.steps, options.every, options.limit_s = 1000, 64, 600, 100, 100
        options.poll_s = 0.02
    if not options.every < options.steps:
        die("--every must be below --steps, so that there is a save to resume from")
    options.folder = tempfile.mkdtemp(prefix="varscope-big-table-", dir=options.dir)
    try:
        killed, steps = killed_run(options)
        whole, rows = whole_run(options, steps)
        print(f"hash of the whole run    {whole}\nhash of the killed one   {killed}")
        if killed != whole:
            die("the run that was killed and resumed ended with other values")
        say_growth(options, rows)
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
