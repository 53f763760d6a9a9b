#!/usr/bin/env python3
"""Random file operations as RUN steps: the image has to be what they make of a plain directory.

    fileops.py --ops PROGRAM --work DIR [options] NAME=KIND=COMMAND...

COMMAND builds (a shell line that gets further arguments; it may use DIR), NAME is what it is called in messages. Each build
has many sequences of operations, each in a directory of its own; step K of the build is step K of all of them. They are
carried out by PROGRAM (fileops/ops.c), which writes down how each ended in a file of the tree. The same steps run below
chroot(2) in a plain directory, and in overlay mounts where this machine has them. Compared is every layer, applied
to those below it, with the tree after that step; and no layer may have an entry for what the step left as it was.

What hard links of earlier steps do is a matter of the file system (docs/isolation.md): where they come up, KIND says whose
tree is right, `plain` or `overlay`. In a user namespace (`overlay-in-namespace`) the kernel makes no devices: sequences
with them are skipped there. There a write takes the set-id bits of a file, root's too (the kernel asks for CAP_FSETID in the
initial user namespace, `fs/attr.c` setattr_should_drop_suidgid): they are not compared.

A sequence that fails is printed with its seed, cut down to the operations that it takes. The last line reads
`N passed, N failed, N skipped`: one for each sequence and NAME.
"""
import argparse
import hashlib
import io
import json
import multiprocessing
import os
import re
import random
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "conformance"))
import bases  # noqa: E402
import flatten  # noqa: E402

NAMES = ["a", "b", "c", "d", "e", "f"]
MODES = ["0755", "0700", "0644", "0600", "04755", "02755", "02775", "01777", "06711", "0111"]
IDS = ["0", "1", "77", "1000", "60000"]
# What is older than this was given its time by an operation.
LONG_AGO = 1_000_000_000

# Kinds of arguments: N a name that is to be made, X one that may be there, T the text of a link, the rest as in LISTS.
LISTS = {"mode": MODES, "id": IDS, "size": ["0", "1", "7", "5000"], "text": ["x", "hello", "other"],
         "time": ["1000", "86400", "999999999"], "right": ["0", "1", "2", "4", "7"]}
OPERATIONS = {
    "mkdir": (10, ["N", "mode"]), "mkdirs": (9, ["N"]), "rmdir": (4, ["X"]), "unlink": (6, ["X"]),
    "remove": (12, ["X"]), "empty": (3, ["X"]), "rename": (16, ["X", "N"]), "rename-new": (2, ["X", "N"]),
    "exchange": (4, ["X", "X"]), "symlink": (9, ["T", "N"]), "copy": (5, ["X", "N"]),
    "write": (9, ["N", "text"]), "new": (4, ["N", "text"]), "append": (4, ["X", "text"]),
    "write-nofollow": (1, ["N", "text"]), "open-directory": (1, ["X"]), "create-directory": (1, ["N"]),
    "open-path": (1, ["X"]), "open-write": (2, ["X"]), "again": (4, ["X"]), "sneak": (2, ["X"]),
    "write-after": (3, ["X", "N"]), "replace": (3, ["N", "text"]), "unnamed": (1, ["X", "N"]),
    "truncate": (3, ["X", "size"]), "chmod": (5, ["X", "mode"]), "chown": (4, ["X", "id", "id"]),
    "lchown": (2, ["X", "id", "id"]), "times": (3, ["X", "time"]), "link-times": (2, ["X", "time"]),
    "fifo": (2, ["N"]), "socket": (1, ["N"]), "file-node": (1, ["N"]), "set-attribute": (2, ["X", "text"]),
    "remove-attribute": (1, ["X"]), "move-open": (2, ["X", "N", "name"]), "stat": (3, ["X"]), "lstat": (2, ["X"]),
    "access": (1, ["X", "right"]), "list": (2, ["X"]), "readlink": (1, ["X"]), "chdir": (1, ["X", "name"]),
    "link": (0, ["X", "N"]), "link-follow": (0, ["X", "N"]), "device": (0, ["N", "minor", "minor"]),
}
LINKS = {"link": 8, "link-follow": 2}
DEVICES = {"device": 3}


class Generator:
    """Makes the operations of one sequence."""

    def __init__(self, seed, where, has_devices):
        self.random = random.Random(seed)
        self.where = where
        self.known = []
        weights = {name: weight for name, (weight, _) in OPERATIONS.items()}
        self.has_links = self.random.random() < 0.25
        if self.has_links:
            weights.update(LINKS)
        if has_devices:
            weights.update(DEVICES)
        self.weights = weights

    def path(self, is_new):
        pick = self.random
        if self.known and pick.random() < (0.45 if is_new else 0.8):
            path = pick.choice(self.known)
            if pick.random() < (0.5 if is_new else 0.2):
                path += "/" + pick.choice(NAMES)
            if pick.random() < 0.1:
                path = os.path.dirname(path) or path
        else:
            path = "/".join(pick.choice(NAMES) for _ in range(pick.choice([1, 1, 1, 2, 2, 3, 4])))
        if path.count("/") > 6:
            path = path.split("/", 1)[1]
        self.known.append(path)
        chance = pick.random()
        if chance < 0.08:
            path += "/"
        elif chance < 0.10:
            path += "/."
        elif chance < 0.12:
            path += "//"
        elif chance < 0.14:
            path = path.replace("/", "/./", 1) if "/" in path else "./" + path
        elif chance < 0.16:
            path += "/../" + pick.choice(NAMES)
        elif chance < 0.18:
            path = f"/{self.where}/{path}"
        elif chance < 0.19:
            path += "/.."
        return path

    def argument(self, kind):
        pick = self.random
        if kind in LISTS:
            return pick.choice(LISTS[kind])
        if kind == "name":
            return pick.choice(NAMES)
        if kind == "minor":
            return str(pick.choice([1, 3, 7, 300]))
        if kind == "T":
            target = self.path(False)
            how = pick.random()
            if how < 0.2:
                return f"/{self.where}/{target}".replace("//", "/")
            if how < 0.4:
                return "../" + target.lstrip("/")
            if how < 0.5:
                return pick.choice(NAMES) + "/"
            if how < 0.55:
                return "nowhere"
            if how < 0.58:
                return "."
            return target
        return self.path(kind == "N")

    def operation(self, is_base):
        while True:
            name = self.random.choices(list(self.weights), self.weights.values())[0]
            if is_base and name == "socket":
                continue  # tar leaves them out
            arguments = [self.argument(kind) for kind in OPERATIONS[name][1]]
            if name == "write-after" and self.random.random() < 0.5:
                arguments[1] = "-"
            return " ".join([name] + arguments)

    def sequence(self, steps):
        counts = [self.random.randint(0, 10)] + [self.random.randint(1, 7) for _ in range(steps)]
        return [[self.operation(step == 0) for _ in range(count)] for step, count in enumerate(counts)]


def uses(operations, sequence):
    return any(line.split()[0] in operations for step in sequence for line in step)


# ---- one build

class Build:
    """Sequences that are built together, and what has to come out."""

    def __init__(self, options, sequences, stages, has_overlay):
        self.options, self.sequences, self.stages = options, sequences, stages
        self.steps = len(sequences[0]) - 1
        self.has_overlay = has_overlay
        self.place = tempfile.mkdtemp(dir=options.work)
        os.chmod(self.place, 0o755)
        self.trees = {}

    def close(self):
        shutil.rmtree(self.place, ignore_errors=True)

    def at(self, *names):
        return os.path.join(self.place, *names)

    def prepare(self):
        base = self.at("base")
        os.makedirs(os.path.join(base, "ops"))
        for name in ("proc", "dev", "sys", "etc", "tmp"):
            os.mkdir(os.path.join(base, name))
        shutil.copy(self.options.ops, os.path.join(base, "ops", "do"))
        for step in range(self.steps + 1):
            with open(os.path.join(base, "ops", str(step)), "w", encoding="ascii") as script:
                for number, sequence in enumerate(self.sequences):
                    script.write(f"@ s{number:03}\n" + "".join(line + "\n" for line in sequence[step]))
        for number in range(len(self.sequences)):
            os.mkdir(os.path.join(base, f"s{number:03}"))
        self.run(base, 0)
        tar = self.at("base.tar")
        subprocess.run(["tar", "-C", base, "--numeric-owner", "--xattrs", "--xattrs-include=user.*", "--format=posix",
                        "-cf", tar, "."], check=True)
        with open(tar, "rb") as content:
            layer = content.read()
        layout = bases.Layout(self.at("layout"))
        layout.finish(layout.image([(layer, "base")], {}))
        lines = ["FROM base AS stage0"]
        for step in range(1, self.steps + 1):
            if step in self.stages:
                lines.append(f"FROM stage{self.stages.index(step)} AS stage{self.stages.index(step) + 1}")
            lines.append(f'RUN ["/ops/do", "/ops/{step}"]')
        os.mkdir(self.at("context"))
        with open(self.at("context", "Dockerfile"), "w", encoding="ascii") as dockerfile:
            dockerfile.write("\n".join(lines) + "\n")
        os.mkdir(self.at("out"))
        os.chmod(self.at("out"), 0o777)
        self.refer(base)

    def run(self, root, step):
        def enter():
            os.chroot(root)
            os.chdir("/")
        proc = os.path.join(root, "proc")
        subprocess.run(["mount", "--bind", "/proc", proc], check=True)
        try:
            done = subprocess.run(["/ops/do", f"/ops/{step}"], preexec_fn=enter, stderr=subprocess.PIPE, check=False)
        finally:
            subprocess.run(["umount", proc], check=True)
        if done.returncode:
            raise RuntimeError(f"the program ended with {done.returncode} in step {step}: {done.stderr!r}")

    def refer(self, base):
        """Carries the steps out and keeps what the tree was like after each."""
        # Of the kinds of trees there is at least the plain one.
        plain = self.at("plain")
        subprocess.run(["cp", "-a", base, plain], check=True)
        self.trees["plain"] = [look(plain)]
        for step in range(1, self.steps + 1):
            self.run(plain, step)
            self.trees["plain"].append(look(plain))
        if not self.has_overlay:
            return
        lowers, trees = [base], [self.trees["plain"][0]]
        for step in range(1, self.steps + 1):
            upper, work, merged = (self.at(f"{name}{step}") for name in ("upper", "work", "merged"))
            for directory in (upper, work, merged):
                os.mkdir(directory)
                os.chmod(directory, 0o755)
            lower = ":".join(reversed(lowers))
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                            f"volatile,index=off,redirect_dir=off,metacopy=off,lowerdir={lower},upperdir={upper},workdir={work}",
                            merged], check=True)
            try:
                self.run(merged, step)
                trees.append(look(merged))
            finally:
                subprocess.run(["umount", merged], check=True)
            lowers.append(upper)
        self.trees["overlay"] = trees

    def build(self, name, command):
        """What is wrong, as pairs of a sequence's number (none: of all) and a text."""
        image = self.at("out", f"{name}.tar")
        words = shlex.split(command) + [
            "--file", self.at("context", "Dockerfile"), "--output", f"type=oci,dest={image}",
            "--build-context", f"base=oci-layout://{self.at('layout')}", self.at("context")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              cwd=self.place, check=False)
        if done.returncode:
            return [(None, f"the build ended with status {done.returncode}:\n" + done.stdout.decode(errors="replace")[-3000:])]
        return list(self.compare(image, name))

    def kinds(self, name):
        """For each sequence, whose tree is right; none where that cannot be told."""
        of_links, _, within = self.options.kinds[name].partition("-in-")
        kinds = [of_links if uses(LINKS, sequence) else "plain" for sequence in self.sequences]
        return [None if kind not in self.trees or (within and uses(DEVICES, sequence)) else kind
                for kind, sequence in zip(kinds, self.sequences)]

    def compare(self, image, name):
        source = flatten.LayoutTar(image)
        manifest = flatten.pick_manifest(source, None, True)
        layers = manifest["layers"][1:]
        if len(layers) != self.steps:
            yield None, f"{len(layers)} layers for {self.steps} steps"
            return
        kinds = self.kinds(name)
        is_within = "-in-" in self.options.kinds[name]
        is_done = [kind is None for kind in kinds]
        tree = flatten.Tree()
        for number, descriptor in enumerate(manifest["layers"]):
            with flatten.decompressor(source.blob(descriptor["digest"])) as stream:
                plain = stream.read()
            tree.apply(io.BytesIO(plain))
            found = per_sequence(describe(tree))
            entries = {}
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                for member in tar:
                    path = os.path.normpath("/" + member.name)
                    entries.setdefault(path.split("/", 2)[1], []).append((path, member))
            for sequence, kind in enumerate(kinds):
                if is_done[sequence]:
                    continue
                key = f"s{sequence:03}"
                wanted = self.trees[kind][number].get(key, {})
                problems = differences(wanted, found.get(key, {}), is_within)
                if number:
                    before = self.trees[kind][number - 1].get(key, {})
                    problems += superfluous(entries.get(key, []), before, wanted)
                if problems:
                    is_done[sequence] = True
                    yield sequence, f"after step {number}:\n" + "\n".join("  " + line for line in problems[:12])
        source.close()


def per_sequence(files):
    parted = {}
    for path, is_like in files.items():
        if path.startswith("/s"):
            parted.setdefault(path.split("/", 2)[1], {})[path] = is_like
    return parted


def look(root):
    """Every file below /sNNN as the comparison wants it, by sequence."""
    files = {}
    pending = [os.path.join(root, name) for name in os.listdir(root) if name.startswith("s") and name != "sys"]
    while pending:
        path = pending.pop()
        is_like = os.lstat(path)
        shown = path[len(root):]
        kind, content, time_ns = stat.S_IFMT(is_like.st_mode), "", is_like.st_mtime_ns
        mode = stat.S_IMODE(is_like.st_mode)
        links = 1
        if stat.S_ISDIR(kind):
            word, time_ns = "dir", None
            pending += [os.path.join(path, name) for name in os.listdir(path)]
        elif stat.S_ISLNK(kind):
            word, content, mode = "symlink", os.readlink(path), 0
        elif stat.S_ISREG(kind):
            word = "file"
            links = (is_like.st_ino, is_like.st_nlink)
            with open(path, "rb") as file:
                content = file.read()
        elif stat.S_ISFIFO(kind):
            word = "fifo"
        elif stat.S_ISSOCK(kind):
            continue
        else:
            word = "char" if stat.S_ISCHR(kind) else "block"
            content = f"{os.major(is_like.st_rdev)}:{os.minor(is_like.st_rdev)}"
        files[shown] = (word, mode, is_like.st_uid, is_like.st_gid, content, time_ns, links)
    return per_sequence(files)


def describe(tree):
    """The same of an unpacked image."""
    files = {}
    for path, node in tree.nodes.items():
        content = node.target or node.device or ""
        if node.kind == "file":
            content = node.sha256 if node.text is None else node.text.encode()
        mode = 0 if node.kind == "symlink" else node.mode
        files[path] = (node.kind, mode, node.uid, node.gid, content, node.mtime, id(node))
    return files


def without_set_ids(is_like):
    kind, mode, uid, gid, content, *rest = is_like
    if kind == "file":
        mode &= ~0o6000
    if isinstance(content, bytes):
        content = re.sub(rb"(?m)^(lstat 10)[0-7]", rb"\g<1>0", content)
    return (kind, mode, uid, gid, content, *rest)


def differences(wanted, found, is_within=False):
    if is_within:
        wanted, found = ({path: without_set_ids(one) for path, one in tree.items()} for tree in (wanted, found))
    problems = []
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            problems.append(f"{path} is missing: {show(wanted[path])}")
        elif path not in wanted:
            problems.append(f"{path} should not be there: {show(found[path])}")
        else:
            one, other = comparable(wanted[path]), comparable(found[path])
            if one != other:
                problems.append(f"{path} should be {show(wanted[path])}, is {show(found[path])}"
                                + log_difference(path, wanted[path], found[path]))
    return problems


def log_difference(path, wanted, found):
    if not path.endswith("/log") or path.count("/") != 2:
        return ""
    return f"\n    wanted {wanted[4]!r}\n    found  {found[4]!r}"


def comparable(is_like):
    kind, mode, uid, gid, content, when, _ = is_like
    if isinstance(content, bytes):
        content = hashlib.sha256(content).hexdigest()
    if kind == "dir":
        when = None
    elif when is not None:
        seconds = when // 1_000_000_000 if when > 100 * LONG_AGO else when
        when = seconds if seconds < LONG_AGO else "now"
    return kind, mode, uid, gid, content, when


def show(is_like):
    kind, mode, uid, gid, content, when = comparable(is_like)
    return f"{kind} {mode:o} {uid}:{gid} {content if kind != 'file' else content[:8]} {when}"


def superfluous(entries, before, after):
    """Entries of a layer that say nothing new."""
    problems = []
    names = {path for path, _ in entries}
    for path, member in entries:
        directory, name = os.path.split(path)
        if name.startswith(".wh."):
            if os.path.join(directory, name[4:]) not in before:
                problems.append(f"the layer deletes {directory}/{name[4:]}, which was not there")
        elif path in before and path in after and before[path][:6] == after[path][:6]:
            if member.isdir():
                if not any(other.startswith(path + "/") for other in names):
                    problems.append(f"the layer has the directory {path}, in which nothing changed")
            elif before[path][6] == after[path][6]:
                problems.append(f"the layer has {path}, which did not change")
    return problems


# ---- many builds

def find_stages(pick, steps):
    return sorted(step for step in range(1, steps + 1) if pick.random() < 0.35)


def overlay_works(work):
    place = tempfile.mkdtemp(dir=work)
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(place, name))
        options = f"volatile,lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{place}/merged"],
                              stderr=subprocess.DEVNULL, check=False)
        if done.returncode:
            return False
        subprocess.run(["umount", f"{place}/merged"], check=True)
        return True
    finally:
        shutil.rmtree(place, ignore_errors=True)


def generate(seed, count):
    pick = random.Random(f"build {seed}")
    steps = pick.choice([3, 3, 3, 4, 5])
    has_devices = pick.random() < 0.2
    sequences = [Generator(f"{seed} {number}", f"s{number:03}", has_devices).sequence(steps) for number in range(count)]
    return sequences, find_stages(pick, steps)


def fails(options, name, sequences, stages, has_overlay):
    """Which of these sequences fail, with what was wrong."""
    build = Build(options, sequences, stages, has_overlay)
    try:
        build.prepare()
        return dict(build.build(name, options.commands[name]))
    finally:
        build.close()


def moved(sequence, old, new):
    return [[line.replace(f"/s{old:03}/", f"/s{new:03}/") for line in step] for step in sequence]


def shrink(options, name, sequence, stages, has_overlay):
    """Leaves out operations, one or more at a time, as long as it still fails."""
    problem = "it does not fail when it is built by itself"
    while True:
        places = [(step, at) for step, lines in enumerate(sequence) for at in range(len(lines))]
        candidates = [[[line for at, line in enumerate(lines) if (step, at) not in without]
                       for step, lines in enumerate(sequence)]
                      for without in chunks(places)][:900]
        candidates.append(sequence)
        tried = fails(options, name, [moved(one, 0, number) for number, one in enumerate(candidates)], stages, has_overlay)
        failing = sorted((number for number in tried if number is not None),
                         key=lambda number: sum(map(len, candidates[number])))
        if not failing:
            return sequence, tried.get(None, problem)
        problem = tried[failing[0]].replace(f"/s{failing[0]:03}", "/s000")
        if failing[0] == len(candidates) - 1:
            return sequence, problem
        sequence = candidates[failing[0]]


def chunks(places):
    yield from ({place} for place in places)
    size = len(places)
    while size > 2:
        size = (size + 1) // 2
        yield from (set(places[start:start + size]) for start in range(0, len(places), size))
    yield from ({one, other} for one in places for other in places if one < other)


def try_seed(job):
    options, seed, has_overlay = job
    sequences, stages = generate(seed, options.batch)
    build = Build(options, sequences, stages, has_overlay)
    results = []
    try:
        build.prepare()
        for name, command in options.commands.items():
            begin = time.monotonic()
            wrong = build.build(name, command)
            skipped = build.kinds(name).count(None)
            results.append((name, wrong, skipped, time.monotonic() - begin))
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        results.append(("the reference", [(None, str(error))], 0, 0))
    finally:
        build.close()
    return seed, sequences, stages, results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ops", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", type=int, default=5, help="so many failures of each NAME are cut down and shown")
    parser.add_argument("builders", nargs="+", metavar="NAME=KIND=COMMAND")
    options = parser.parse_args()
    options.kinds, options.commands = {}, {}
    for builder in options.builders:
        name, kind, command = builder.split("=", 2)
        options.kinds[name], options.commands[name] = kind, command
    has_overlay = overlay_works(options.work)
    if not has_overlay:
        print("no overlay can be mounted here: sequences with hard links are compared in place only", file=sys.stderr)
    seeds = range(options.seed, options.seed + (options.sequences + options.batch - 1) // options.batch)
    passed = failed = skipped = 0
    shown = dict.fromkeys(options.commands, 0)
    spent = dict.fromkeys(options.commands, 0.0)
    with multiprocessing.Pool(options.jobs) as pool:
        jobs = [(options, seed, has_overlay) for seed in seeds]
        for seed, sequences, stages, results in pool.imap_unordered(try_seed, jobs):
            for name, wrong, without, seconds in results:
                wrong_ones = [number for number, _ in wrong]
                count = len(sequences) if None in wrong_ones else len(wrong_ones)
                failed += count
                skipped += without
                passed += max(len(sequences) - count - without, 0)
                spent[name] = spent.get(name, 0) + seconds
                for number, problem in wrong:
                    if number is None:
                        print(f"FAIL  {name}, seed {seed}: {problem}", flush=True)
                        continue
                    print(f"FAIL  {name}, seed {seed}, sequence {number}, stages {stages}", flush=True)
                    if shown[name] >= options.show:
                        continue
                    shown[name] += 1
                    small, small_problem = shrink(options, name, moved(sequences[number], number, 0), stages, has_overlay)
                    print(f"{problem}\ncut down: {json.dumps(small)}\n{small_problem}", flush=True)
    print("seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()), file=sys.stderr)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
