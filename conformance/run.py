#!/usr/bin/env python3
"""Build every case with a builder and compare the images with the expected ones.

    run.py --adapter NAME [--builder 'PROGRAM [ARG...]'] [options]

An adapter (adapters/NAME.json, or a path) says how to call a builder; --builder
replaces its program, or, when it has a {placeholder}, its whole command line.
README.md describes cases and adapters.

Options
    --jobs N          builds at a time (default: the number of processors)
    --only PATTERN    cases to run: a tag, or a glob on the case's name; repeatable,
                      commas allowed; all of them when absent
    --skip PATTERN    cases to leave out, likewise
    --aspects LIST    what to compare: config,files,layers,history (default: all)
    --ignore GLOB     leave paths out of every comparison, to look past a known
                      difference; repeatable
    --strict          an error case also needs a good message and the right line,
                      and an image case its expected warnings
    --cache           let the builder use its cache (default: without, where the
                      adapter knows how)
    --repeat N        build each case N times, the later times with the cache
    --json FILE       write the results as JSON
    --busybox FILE    the static busybox for the base images (default: /usr/bin/busybox
                      or /bin/busybox)
    --debian DIR      a Debian root file system; without it the cases that need one
                      are skipped
    --timeout S       seconds a build may take (default 120)
    --work DIR        where to work (default: a temporary directory)
    --keep            keep the working directory
    --lines N         how many lines to print per failing case (default 6)
    --known FILE      the cases that are known to fail, one `NAME  REASON` per line:
                      these may fail, and a listed case that passes is a failure,
                      so that the list shrinks with the work
    --write-known FILE
                      write what that list would be after this run (- is stdout);
                      reasons that are there already are kept
    --record          write expected.json from this builder instead of comparing
    --list            print the cases and their tags, build nothing

The last line reads 'N passed, N failed, N skipped', with --known also
', N known failures'; the exit status is 0 only when nothing failed.
"""
import argparse
import concurrent.futures
import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

import bases
import flatten
import server

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = os.path.join(HERE, "cases")
RESERVED = ("case.json", "expected.json", "setup.sh")
TIME = 1577836800  # 2020-01-01T00:00:00Z, the earliest modification time in a context

CACHED = 30 * 86400  # a step out of the cache may be this much older than the build

CASE_KEYS = ("title", "why", "tags", "expected", "base", "build_args", "target",
                 "platform", "secrets", "ssh", "contexts", "dockerfile", "http", "needs",
                 "message", "line", "warnings", "mtime", "ignore", "aspects")


class CaseError(Exception):
    """The case itself cannot be prepared."""


def load_cases():
    cases = []
    for name in sorted(os.listdir(CASES)):
        path = os.path.join(CASES, name, "case.json")
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8") as f:
            case = json.load(f)
        unknown = set(case) - set(CASE_KEYS)
        if unknown:
            raise SystemExit(f"{path}: unknown keys {sorted(unknown)}")
        case["name"] = name
        case["dir"] = os.path.join(CASES, name)
        cases.append(case)
    return cases


def selected(case, patterns):
    return any(p in case["tags"] or fnmatch.fnmatchcase(case["name"], p) for p in patterns)


# --------------------------------------------------------------------------
# Adapters


class Adapter:
    """Turns a case into command lines for one builder."""

    def __init__(self, path, builder):
        if not os.path.sep in path:
            path = os.path.join(HERE, "adapters", path + ".json")
        with open(path, encoding="utf-8") as f:
            self.spec = json.load(f)
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.program = shlex.split(self.spec["program"])
        self.command = self.spec["command"]
        if builder and "{" in builder:
            self.command = builder
        elif builder:
            self.program = shlex.split(builder)

    @staticmethod
    def fill(template, values):
        """Split a template into words, then put the values into the words.

        A word that is only `{name}` and whose value is a list becomes that list.
        """
        words = []
        for word in shlex.split(template):
            whole = re.fullmatch(r"\{(\w+)\}", word)
            if whole and isinstance(values.get(whole[1]), list):
                words.extend(values[whole[1]])
                continue
            words.append(re.sub(r"\{(\w+)\}", lambda m: str(values[m[1]])
                                if m[1] in values else m[0], word))
        return words

    def flag(self, kind, **values):
        template = self.spec["flags"].get(kind)
        if template is None:
            raise Unsupported(kind)
        return self.fill(template, values)


class Unsupported(Exception):
    """The adapter has no flag for something the case needs."""


# --------------------------------------------------------------------------
# Preparing one case


def copy_context(source, target):
    """Copy a case's files with normal modes and reproducible modification times.

    The time of a file follows from its content: builders that skip a transfer when
    path, size and time are the same must not take one case's file for another's.
    """
    os.makedirs(target, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        if entry.name in RESERVED or entry.name.startswith("@"):
            continue
        copy_tree(entry.path, os.path.join(target, entry.name))
    os.chmod(target, 0o755)
    os.utime(target, (TIME, TIME))


def copy_tree(source, target):
    status, when = os.lstat(source), TIME
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
        for entry in sorted(os.listdir(source)):
            copy_tree(os.path.join(source, entry), os.path.join(target, entry))
        os.chmod(target, 0o755)
    else:
        shutil.copyfile(source, target)
        os.chmod(target, 0o755 if status.st_mode & 0o111 else 0o644)
        with open(target, "rb") as f:
            when += int(hashlib.sha256(f.read()).hexdigest()[:7], 16) % 100000000
    os.utime(target, (when, when), follow_symlinks=False)


def remove_tree(path):
    def retry(function, failed, _):
        os.chmod(os.path.dirname(failed), 0o700)
        function(failed)
    shutil.rmtree(path, onerror=retry)


def give(root, uid):
    """Make everything below `root` a user's, who may not be able to read it otherwise."""
    for directory, names, files in os.walk(root):
        for path in [directory] + [os.path.join(directory, name) for name in names + files]:
            mode = os.lstat(path).st_mode
            os.lchown(path, uid, uid)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))  # set-id bits do not outlast another owner


def run_command(words, timeout, env=None, cwd=None):
    """Run a command in its own process group; return (status, output, timed out)."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=env, cwd=cwd,
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output.decode("utf-8", "replace"), False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return process.returncode, output.decode("utf-8", "replace"), True


class Runner:
    def __init__(self, args, adapter):
        self.args, self.adapter = args, adapter
        self.work = args.work or tempfile.mkdtemp(prefix="conformance-")
        os.makedirs(self.work, exist_ok=True)
        self.server = server.Server()
        self.key = None
        self.lock = threading.Lock()

    # -- once per run

    def prepare(self):
        busybox = self.args.busybox or next(
            (p for p in ("/usr/bin/busybox", "/bin/busybox") if os.path.exists(p)), None)
        if not busybox:
            raise SystemExit("no busybox here; install busybox-static or give --busybox")
        self.layouts = bases.write_all(os.path.join(self.work, "bases"), busybox,
                                       self.args.debian)
        self.server.layouts.update(self.layouts)
        self.images = {"scratch": flatten.Image({}, flatten.Tree(), [])}
        self.cache = {}
        for name, path in self.layouts.items():
            for platform in (("linux/amd64", "linux/arm64", "linux/arm/v7")
                             if name == "many" else (None,)):
                image = flatten.load(path, platform=platform, verify=False, cache=self.cache)
                self.cache[image.diff_ids()] = image
                self.images[name + ("@" + platform if platform else "")] = image
        keygen = shutil.which("ssh-keygen")
        if keygen:
            self.key = os.path.join(self.work, "ssh-key")
            if not os.path.exists(self.key):
                subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "conformance",
                                "-f", self.key], check=True)
            if self.args.owner is not None:
                os.chown(self.key, self.args.owner, self.args.owner)
        self.values = {"work": self.work, "registry": self.server.address,
                       "program": self.adapter.program}
        for name, template in self.adapter.spec.get("words", {}).items():
            self.values[name] = self.adapter.fill(template, self.values)
        self.env = dict(os.environ)
        for key, value in self.adapter.spec.get("env", {}).items():
            self.env[key] = " ".join(self.adapter.fill(value, self.values))
        for name, lines in self.adapter.spec.get("files", {}).items():
            with open(os.path.join(self.work, name), "w", encoding="utf-8") as f:
                f.write("\n".join(re.sub(r"\{(\w+)\}", lambda m: str(self.values.get(m[1], m[0])),
                                         line) for line in lines) + "\n")
        for template in self.adapter.spec.get("prepare", ()):
            self.helper(template, self.values)

    def helper(self, template, values):
        status, output, _ = run_command(self.adapter.fill(template, values), 600, self.env)
        if status:
            words = template.replace("{program} ", "").replace("{storage} ", "").split()
            raise CaseError(f"the builder's {words[0]}: {last_words(output)}")

    def finish(self):
        for template in self.adapter.spec.get("cleanup", ()):
            run_command(self.adapter.fill(template, self.values), 600, self.env)
        self.server.shutdown()
        if not self.args.keep and not self.args.work:
            remove_tree(self.work)

    # -- one case

    def missing_need(self, case):
        have = {"debian": "debian" in self.layouts, "git": shutil.which("git"),
                "ssh-keygen": self.key, "zstd": "tarlayers" in self.layouts}
        for need in case.get("needs", ()):
            if not have.get(need):
                return f"needs {need}"
        return None

    def place(self, case):
        """Lay out the case's context; return the values for the adapter."""
        root = tempfile.mkdtemp(prefix=case["name"] + "-", dir=self.work)
        mask = os.umask(0o022)  # check-in-cage has none: builders of another user write the image here
        os.umask(mask)
        os.chmod(root, 0o777 & ~mask)
        context = os.path.join(root, "ctx")
        copy_context(case["dir"], context)
        for entry in os.scandir(case["dir"]):
            if entry.name.startswith("@"):
                copy_tree(entry.path, os.path.join(root, entry.name))
        served = os.path.join(root, "@http")
        os.makedirs(served, exist_ok=True)
        script = os.path.join(case["dir"], "setup.sh")
        if os.path.exists(script):
            env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": root, "ROOT": root,
                   "HTTP_DIR": served}
            done = subprocess.run(["sh", "-eu", script], cwd=context, env=env, check=False,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  preexec_fn=lambda: os.umask(0o022))
            if done.returncode:
                raise CaseError(f"setup.sh: exit status {done.returncode}\n"
                                + done.stdout + done.stderr)
        if self.args.owner is not None:
            give(root, self.args.owner)
        self.server.trees[os.path.basename(root)] = served
        return root, context

    def flags(self, case, root, cached):
        a, out = self.adapter, []
        http = os.path.basename(root)
        arguments = dict(case.get("build_args", {}))
        if case.get("http"):
            arguments["HTTP"] = f"http://{self.server.address}/files/{http}"
            arguments["GIT"] = f"http://{self.server.address}/git/{http}"
        for key, value in arguments.items():
            out += a.flag("build_arg", key=key, value=value)
        for option in ("target", "platform"):
            if option in case:
                out += a.flag(option, value=case[option])
        for key, value in case.get("secrets", {}).items():
            path = os.path.join(root, "secret-" + re.sub(r"\W", "_", key))
            with open(path, "w", encoding="utf-8") as f:
                f.write(value)
            out += a.flag("secret", id=key, path=path)
        for key in case.get("ssh", ()):
            out += a.flag("ssh", id=key, path=self.key)
        taken = set()
        for key, value in case.get("contexts", {}).items():
            kind, _, value = value.partition(":")
            taken.add(key)
            if kind == "dir":
                out += a.flag("context_dir", name=key, path=os.path.join(root, "@" + value))
            elif kind == "image":
                out += a.flag("context_image", name=key, image=value, layout=self.layouts[value],
                              ref=f"{self.server.address}/library/{value}:latest")
            else:
                raise CaseError(f"contexts: unknown kind {kind!r}")
        for name, path in self.layouts.items():
            if name not in taken:
                out += a.flag("base", name=name, layout=path,
                              ref=f"{self.server.address}/library/{name}:latest")
        if not cached and "no_cache" in a.spec["flags"]:
            out += a.flag("no_cache")
        return out

    def build(self, case, cached):
        """Build once; return (status, output, description or None, seconds)."""
        root, context = self.place(case)
        try:
            dockerfile = case.get("dockerfile", "Dockerfile")
            dockerfile = os.path.join(root if dockerfile.startswith("@") else context, dockerfile)
            out = os.path.join(root, "out")
            values = dict(self.values, context=context, dockerfile=dockerfile, out=out,
                          dockerfile_dir=os.path.dirname(dockerfile), case=case["name"].lower(),
                          dockerfile_name=os.path.basename(dockerfile), root=root,
                          id=re.sub(r"[^a-z0-9]", "", os.path.basename(root).lower()))
            values["flags"] = self.flags(case, root, cached)
            begin = time.time()
            for template in self.adapter.spec.get("before", ()):
                self.helper(template, values)
            status, output, late = run_command(
                self.adapter.fill(self.adapter.command, values), self.args.timeout, self.env)
            if late:
                status, output = -1, output + f"\nno end after {self.args.timeout} s"
            description = None
            if status == 0:
                for template in self.adapter.spec.get("after", ()):
                    self.helper(template, values)
                base = case.get("base", "busybox")
                image = flatten.load(out, platform=case.get("platform"), cache=self.cache)
                description = flatten.describe(
                    image, self.images[base], case.get("ignore", ()),
                    case.get("mtime", False), int(begin) - (CACHED if cached else 2))
            for template in self.adapter.spec.get("always", ()):
                run_command(self.adapter.fill(template, values), 60, self.env)
            return status, output.replace(root, "").replace(self.server.address, "REGISTRY"), \
                description, time.time() - begin
        finally:
            self.server.trees.pop(os.path.basename(root), None)
            if not self.args.keep:
                remove_tree(root)

    def judge(self, case, status, output, description):
        """Return (lines that say what is wrong, lines about the messages)."""
        wrong, notes = [], []
        if case["expected"] == "error":
            if status == 0:
                return ["builds, but should be refused"], []
            if status == -1:
                return ["does not end"], []
            refusals = self.adapter.spec.get("refusals")
            if refusals and status not in refusals:
                return [f"ends with status {status}, which is no refusal: "
                        + last_words(output)], []
            said = re.sub(r"(?m)^\s*\d+ \|.*$", "", output)  # without quoted source
            for pattern in case.get("message", ()):
                if not re.search(pattern, said, re.IGNORECASE | re.MULTILINE):
                    notes.append(f"message: nothing matches /{pattern}/")
            line = case.get("line")
            if line and not re.search(rf"(?im)(file[^\s:]*:{line}\b|\bline:? {line}\b"
                                      rf"|^\s*{line} \| *>>>)", output):
                notes.append(f"message: does not name line {line}")
            if notes:
                notes.append("message: " + last_words(output))
            return wrong, notes
        if status != 0:
            return ["does not build: " + last_words(output)], []
        with open(os.path.join(case["dir"], "expected.json"), encoding="utf-8") as f:
            expected = json.load(f)
        aspects = [a for a in self.args.aspects.split(",")
                   if a in case.get("aspects", flatten.ASPECTS)]
        wrong = flatten.diff(expected, description, aspects,
                             list(case.get("ignore", ())) + self.args.ignore)
        for text in case.get("warnings", ()):
            if text not in output:
                notes.append(f"warning: {text} is not mentioned")
        return wrong, notes

    def record(self, case, status, output, description):
        path = os.path.join(case["dir"], "expected.json")
        if case["expected"] == "error":
            if status == 0:
                return ["builds, but the case expects an error"], []
            message = portable(error_text(output))
            document = {"format": flatten.FORMAT, "error": {"message": message}}
        elif status != 0:
            return ["does not build: " + last_words(output)], []
        else:
            document = dict(description, history=[
                dict(h, created_by=portable(h["created_by"])) for h in description["history"]])
        with open(path, "w", encoding="ascii") as f:
            f.write(flatten.dump(document))
        return self.judge(case, status, output, description)

    def run_case(self, case):
        result = {"name": case["name"], "tags": case["tags"], "status": "passed",
                  "expected": case["expected"], "lines": [], "messages": [], "seconds": 0.0}
        need = self.missing_need(case)
        if need:
            return dict(result, status="skipped", lines=[need])
        try:
            for turn in range(self.args.repeat):
                status, output, description, seconds = self.build(
                    case, self.args.cache or turn > 0)
                check = self.record if self.args.record else self.judge
                wrong, notes = check(case, status, output, description)
                result["seconds"] += round(seconds, 3)
                result["messages"] = notes
                lines = wrong + (notes if self.args.strict else [])
                if lines:
                    prefix = f"build {turn + 1}: " if turn else ""
                    return dict(result, status="failed", lines=[prefix + s for s in lines])
        except Unsupported as e:
            return dict(result, status="failed", lines=[f"the adapter has no flag for {e}"])
        except flatten.ImageError as e:
            return dict(result, status="failed", lines=[f"bad image: {e}"])
        except Exception as e:  # one broken case must not end the run
            return dict(result, status="failed", lines=[f"{type(e).__name__}: {e}"])
        return result


def error_text(output):
    """The part of a failed build's output that is the error."""
    lines = [s.rstrip() for s in output.splitlines() if s.strip()]
    found = [s for s in lines if re.match(r"(?i)(error|fatal)\b", s)]
    return (found or lines or ["(no output)"])[-1]


def portable(text):
    """An error text without what differs from machine to machine."""
    text = re.sub(r"/\S*?/(?:snapshots/\d+/fs|cachemounts/[a-z]*\d+)", "ROOT", text)
    text = re.sub(r"ref [0-9a-z]{25}::[0-9a-z]{25}", "ref ID", text)
    text = re.sub(r": failed to do request.*", "", text, flags=re.DOTALL)
    text = re.sub(r"127\.0\.0\.1:\d+", "REGISTRY", text)
    return re.sub(r"REGISTRY/(files|git)/[^/\s]+", r"REGISTRY/\1/CASE", text)


def last_words(output):
    text = error_text(output)
    return text if len(text) < 400 else text[:200] + " ... " + text[-200:]


# --------------------------------------------------------------------------
# Known failures


def read_known(path, cases):
    """The list of known failures as {case name: reason}; it must be sorted and exact."""
    known, names = {}, {c["name"] for c in cases}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, _, reason = line.replace("\t", " ").partition(" ")
            reason = reason.strip()
            if name not in names:
                raise SystemExit(f"{path}:{number}: there is no case {name!r}")
            if not reason:
                raise SystemExit(f"{path}:{number}: {name} has no reason")
            if known and name <= next(reversed(known)):
                raise SystemExit(f"{path}:{number}: {name} is out of order")
            known[name] = reason
    return known


def apply_known(results, known, path):
    """Failures that are listed become `known`; listed cases that pass become failures."""
    for result in results:
        if result["name"] not in known:
            continue
        if result["status"] == "failed":
            result["status"] = "known"
        elif result["status"] == "passed":
            result["status"] = "failed"
            result["lines"] = [f"passes now: remove it from {os.path.basename(path)}"]
            result["passes_now"] = True


def write_known(path, results, known, cases):
    """What the list would be. Listed cases that did not run keep their line."""
    ran = {r["name"]: r for r in results}
    out = []
    for name in sorted(c["name"] for c in cases):
        result = ran.get(name)
        if result is None or result["status"] == "skipped":
            if name in known:
                out.append((name, known[name]))
        elif result["status"] in ("failed", "known") and not result.get("passes_now"):
            why = " ".join((result["lines"] or ["?"])[0].split())
            out.append((name, known.get(name) or why[:160]))
    text = "".join(f"{name}  {reason}\n" for name, reason in out)
    if path == "-":
        sys.stdout.write(text)
        return
    head = ""
    if os.path.exists(path):  # the comment at the top stays
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    break
                head += line
    with open(path, "w", encoding="utf-8") as f:
        f.write(head + text)


# --------------------------------------------------------------------------
# Reports


def tally(results):
    return {s: sum(r["status"] == s for r in results)
            for s in ("passed", "failed", "known", "skipped")}


def table(results, strict):
    tags = sorted({t for r in results for t in r["tags"]})
    rows = [("tag", "cases", "passed", "failed", "known", "skipped", "passed %")]
    for tag in tags + [None]:
        group = [r for r in results if tag is None or tag in r["tags"]]
        count = tally(group)
        done = len(group) - count["skipped"]
        share = f"{100 * count['passed'] / done:.0f}" if done else "-"
        rows.append((tag or "all", len(group), count["passed"], count["failed"],
                     count["known"], count["skipped"], share))
    widths = [max(len(str(r[i])) for r in rows) for i in range(7)]
    for row in rows:
        print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w)
                        for i, (c, w) in enumerate(zip(row, widths))))
    wrong = {}
    for r in results:
        failed = r["status"] in ("failed", "known") and not r.get("passes_now")
        for kind in {s.split(":", 1)[0] for s in r["lines"]} if failed else ():
            kind = kind if kind in flatten.ASPECTS + ("message", "warning") else "build"
            wrong[kind] = wrong.get(kind, 0) + 1
    if wrong:
        print("failing cases by what differs: "
              + ", ".join(f"{k} {v}" for k, v in sorted(wrong.items())))
    errors = [r for r in results if r["expected"] == "error" and r["status"] != "skipped"]
    if errors and not strict:
        refused = [r for r in errors if r["status"] == "passed"]
        good = [r for r in refused if not r["messages"]]
        print(f"error cases: {len(refused)} of {len(errors)} refused, "
              f"{len(good)} with a good message and line")


def arguments(argv):
    p = argparse.ArgumentParser(description="Build the cases and compare the images.",
                                epilog="The text at the top of this file says more.")
    p.add_argument("--adapter", default="zuwai")
    p.add_argument("--builder")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--skip", action="append", default=[])
    p.add_argument("--aspects", default=",".join(flatten.ASPECTS))
    p.add_argument("--ignore", action="append", default=[])
    p.add_argument("--strict", action="store_true")
    p.add_argument("--cache", action="store_true")
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--json")
    p.add_argument("--busybox")
    p.add_argument("--debian")
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--work")
    p.add_argument("--keep", action="store_true")
    p.add_argument("--owner", type=int)
    p.add_argument("--lines", type=int, default=6)
    p.add_argument("--known")
    p.add_argument("--write-known", metavar="FILE")
    p.add_argument("--record", action="store_true")
    p.add_argument("--list", action="store_true")
    return p.parse_args(argv)


def main(argv):
    args = arguments(argv)
    cases = every = load_cases()
    known = read_known(args.known, every) if args.known else {}
    only = [p for s in args.only for p in s.split(",")]
    skip = [p for s in args.skip for p in s.split(",")]
    cases = [c for c in cases if (not only or selected(c, only)) and not selected(c, skip)]
    if args.list:
        for case in cases:
            print(f"{case['name']}: {case['title']} [{', '.join(case['tags'])}]")
        return 0
    runner = Runner(args, Adapter(args.adapter, args.builder))
    begin = time.time()
    try:
        runner.prepare()
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(runner.run_case, cases))
    finally:
        runner.finish()
    apply_known(results, known, args.known or "")
    for result in results:
        if result["status"] == "skipped":
            print(f"SKIP {result['name']}: {result['lines'][0]}")
        elif result["status"] == "failed":
            print(f"FAIL {result['name']}")
            for line in result["lines"][:args.lines]:
                print("    " + line.replace("\n", "\n      "))
            if len(result["lines"]) > args.lines:
                print(f"    and {len(result['lines']) - args.lines} more")
    table(results, args.strict)
    print(f"{time.time() - begin:.0f} s with {args.jobs} at a time")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"adapter": runner.adapter.name, "results": results}, f, indent=1)
            f.write("\n")
    if args.write_known:
        write_known(args.write_known, results, known, every)
    count = tally(results)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"
          + (f", {count['known']} known failures" if args.known else ""))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
