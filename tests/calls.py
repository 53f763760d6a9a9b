#!/usr/bin/env python3
"""Random system calls under `emulate` and in a real container: results and trees have to be the same.

    calls.py --program FILE --work DIR [options] NAME=COMMAND...

COMMAND builds (a shell line that gets further arguments; it may use DIR), NAME is what it is called in messages. Each build is
one RUN step with many sequences of calls, each in a directory and in processes of its own. PROGRAM (calls/calls.c) carries
them out and writes down how each call ended and what the tree is like for the step at its end; the same program does the same as root
with Docker's capabilities in a root file system of its own on the same file system, with the kernel alone. Compared are the
results of every call, the tree as seen from within, and the tree of the image. What is decided to be different is in KNOWN, with
its reason.

A sequence that fails is printed with its seed, cut down to the calls that it takes. The last line reads `N passed, N failed`: one
for each sequence and NAME.
"""
import argparse
import errno
import hashlib
import multiprocessing
import os
import random
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time

NAMES = ["a", "b", "c", "d", "e"]
MODES = ["0755", "0700", "0644", "0600", "0777", "0666", "04755", "02755", "02775", "01777", "06711", "0111", "0000", "02644", "0222"]
IDS = ["0", "1000", "1001"]
GROUPS = ["-", "1000", "1001", "2000", "1001,2000", "0", "0,1000,2000"]
SLOTS = ["0", "1", "2", "3", "4", "5"]
FILES = [f"/proc/self/fd/{10 + slot}" for slot in range(6)]
# What is older than this was given its time by a call.
LONG_AGO = 1_000_000_000
# Of attributes layers have this one, of files (crates/rootfs/src/commit/walk.rs).
CAPABILITY = "security.capability"
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_EACCESS = 0x100, 0x200, 0x400, 0x1000, 0x200
CLONE_FS, CLONE_FILES = 0x200, 0x400
BLOCKS = ("fork", "as", "share", "thread", "exec", "vexec", "execat")


# ---- what is decided to be different

class Known:
    """A difference that stays, and why. What follows in the sequence is compared if it `goes_on`."""

    def __init__(self, reason, test, goes_on=True, places=""):
        self.reason, self.test, self.goes_on, self.places = reason, test, goes_on, places


# `test` gets the sequence, the number of the call's line, its words, the reference's result and the other one.
def has_extra_flag(_sequence, _at, words, wanted, found):
    return words[0] in ("open", "getfl") and without_flag(words, wanted) == without_flag(words, found)


def without_flag(words, line):
    number, _, flags = line.rpartition(" ")
    if not re.fullmatch(r"\d+", flags):
        return line
    return number, int(flags, 8 if words[0] == "open" else 10) & ~os.O_NOFOLLOW


def is_link_of_path_only(_sequence, _at, words, wanted, found):
    return words[0] in ("stat", "statx") and " 120000 " in wanted and wanted.replace(" 120000 ", " 120500 ") == found


def is_sender(_sequence, _at, words, wanted, found):
    """The same but for a name of the builder's."""
    cut = re.compile(r"a\d+:.*$")
    return words[0] == "recvfrom" and "/proc/self/fd/" in found and cut.sub("", wanted) == cut.sub("", found)


def is_set_id_left(sequence, at, words, wanted, found):
    """The same but for set-id bits of a regular file, after somebody who is not root could write."""
    def without_bits(line):
        return re.sub(r"\b10([0-7])([0-7]{3})\b", lambda mode: f"10{int(mode[1]) & 1}{mode[2]}", line)

    before = sequence[:at] if isinstance(at, int) else sequence
    writes = any(line.split()[0] in ("open", "write", "ftruncate", "truncate") for line in before)
    is_user = any(line.split()[0] in ("as", "setuid", "setreuid", "setresuid", "seteuid", "setfsuid") for line in before)
    return words[0] in ("stat", "statx", "fstat", "=") and writes and is_user and without_bits(wanted) == without_bits(found)


def is_path_only(_sequence, _at, words, wanted, found):
    """What a descriptor that is not O_PATH with `emulate` says of itself, or one of /proc."""
    if words[0] == "open" and words[2] == "/proc":
        return kind_of(wanted) == kind_of(found) == "value"
    if words[0] == "open":
        # Its number, and whether it may be opened to read.
        return int(words[3]) & os.O_PATH and re.sub(r"^(\d+ \d+) \d+", r"\1", wanted) == re.sub(r"^(\d+ \d+) \d+", r"\1", found)
    return words[0] == "getfl" and int(wanted.split(" ")[-1]) & os.O_PATH


def uses_path_only(sequence, at, words, wanted, found):
    """The kernel does nothing with such a descriptor. Who is not root must not come by what it may not read, either."""
    if not (words[0] in BY_DESCRIPTOR or words[0] in BY_ATTRIBUTE and words[1] == "f") or kind_of(wanted) != "EBADF":
        return False
    # Of what may not be read there is an empty file instead.
    reads = words[0] in ("read", "pread", "list", "getxattr") and kind_of(found) == "value" and not found.endswith(" ok ")
    return not reads or not is_for_others(sequence, at) or not sequence.has_unreadable


BY_ATTRIBUTE = ("getxattr", "setxattr", "listxattr", "removexattr")
BY_DESCRIPTOR = ("read", "pread", "write", "pwrite", "lseek", "ftruncate", "fsync", "fallocate", "list", "fchmod", "fchown", "futimens",
                 "setfl", "bind", "connect", "listen", "accept", "sockname", "peername", "peercred", "sendto", "recvfrom")


class Lines(list):
    """The calls of a sequence, with what the reference said of them."""

    def __init__(self, lines, log):
        super().__init__(lines)
        self.has_unreadable = any(re.fullmatch(rf"\d+ \d+ \d+ E{errno.EACCES}", line) for line in log)


def is_for_others(sequence, at):
    """Whether a call may be one of another user than root."""
    return any(line.startswith(("as ", "setuid ", "setreuid ", "setresuid ", "setfsuid ")) for line in sequence[:at])


def is_on_machine(_sequence, _at, words, wanted, found):
    return kind_of(wanted) == "EROFS" and any(word.startswith(("/dev", "/proc")) for word in words)


def is_own_in_proc(sequence, at, words, wanted, found):
    """What /proc has of a process that has changed its user is root's until the next execve (fs/proc/base.c task_dump_owner)."""
    if not is_for_others(sequence, at):
        return False
    if re.sub(r" \d+:\d+$", "", wanted) == re.sub(r" \d+:\d+$", "", found):
        return any(re.match("/proc/|/dev/fd", word) for word in words)
    return kind_of(wanted) == "EACCES" and kind_of(found) in ("ENOENT", "ENOTDIR") and \
        any(line.startswith(("chdir /proc", "chdir /dev", "fchdir")) for line in sequence[:at])


def is_in_proc(_sequence, _at, words, wanted, found):
    is_refused = kind_of(found) == "EROFS" or words[0] == "access" and int(words[4]) & AT_SYMLINK_NOFOLLOW
    return is_refused and any(word.startswith(("/proc", "/dev/fd")) for word in words)


def is_empty_link(_sequence, _at, words, wanted, found):
    return words[0] == "link" and int(words[5]) & AT_EMPTY_PATH and kind_of(wanted) == "ENOENT"


def is_same_time(_sequence, _at, words, wanted, found):
    return words[0] == "setfl" and int(words[2]) & os.O_NOATIME and kind_of(wanted) == "EPERM"


def is_own_of_socket(sequence, at, words, wanted, found):
    if all(re.fullmatch(r"\d+ 14[0-7]{4} \d+:\d+", line) for line in (wanted, found)):
        return True
    # Who has made it is not remembered: anybody may change what nobody sees.
    changes = words[0] in ("chmod", "fchmod", "utimens", "futimens", "chown", "fchown")
    is_user = any(line.startswith("as ") for line in sequence[:at])
    return changes and is_user and kind_of(wanted) == "EPERM" and any(line.startswith("socket ") for line in sequence[:at])


def is_refused(_sequence, _at, words, _wanted, found):
    return words[0] in ("chroot", "unshare") and kind_of(found) == "EPERM"


def is_recorded_device(_sequence, _at, words, wanted, found):
    return words[0] in ("ls", "list") and re.sub(r" c(\S)", r" -\1", wanted) == re.sub(r" c(\S)", r" -\1", found)


def is_attribute_of_socket(_sequence, _at, words, wanted, found):
    return words[0] in BY_ATTRIBUTE and ("ENOTSUP" in (kind_of(wanted), kind_of(found)) or "system.sockprotoname" in wanted)


def is_without_rights(sequence, at, _words, wanted, _found):
    changed = [line for line in sequence[:at] if line.startswith(("setfsuid", "setuid", "setreuid", "setresuid"))]
    return kind_of(wanted) in ("EPERM", "EACCES") and len(changed) > 1 and any(line.startswith("setfsuid") for line in changed)


def is_mode_of_link(_sequence, _at, words, wanted, found):
    """A link of /proc/self/fd has a mode that says how its file was opened: not at all, for O_PATH."""
    return words[0].endswith(("stat", "statx")) and any(word.startswith(("/proc/", "/dev/fd/")) for word in words) \
        and wanted.split(" ")[1] == "120000" and re.fullmatch(r"\d+ 1205?00 \d+:\d+", found)


def is_whiteout(_sequence, _at, words, wanted, found):
    return words[0] == "rename" and int(words[5]) & 4 and kind_of(found) == "EINVAL"


KNOWN = [
    Known("the builder opens what it has walked to with O_NOFOLLOW, which the descriptor keeps and nothing acts upon", has_extra_flag),
    Known("the kernel hands no O_PATH descriptors to other processes: the step gets one that it can read", is_path_only),
    Known("the same: what the kernel refuses on an O_PATH descriptor works on that one", uses_path_only, goes_on=False),
    Known("the reference has /dev and /proc read-only, so that sequences do not change them for each other", is_on_machine, goes_on=False),
    Known("the same: its mode in /proc", is_mode_of_link),
    Known("setfsuid(2) takes rights over files that no change of the other ids gives back, and of rights only what follows from users is "
          "known (docs/isolation.md)", is_without_rights, goes_on=False),
    Known("whether a process may be dumped is not told apart", is_own_in_proc),
    Known("/proc is read-only", is_in_proc, goes_on=False),
    Known("from Linux 6.10 on who has opened a descriptor may link it, with the same `struct cred` in the kernel: a process that was "
          "forked afterwards has another one, and nobody else can know", is_empty_link, goes_on=False),
    Known("fcntl(2) goes to the kernel, for which every file is the builder's own", is_same_time),
    Known("the inode of a socket without a name is the builder's", is_own_of_socket),
    Known("the seccomp profile of containers refuses it to who has not the capability", is_refused, goes_on=False, places="(?!user:)"),
    Known("getdents64(2) is the kernel's, for which a device that is recorded is a file", is_recorded_device),
    Known("what attributes a socket without a name has, of which nobody asks", is_attribute_of_socket, goes_on=False),
    Known("the same: the link of /proc says what may be done with it", is_link_of_path_only),
    Known("where a datagram came from is the builder's name for the socket, which recvfrom(2) has from the kernel", is_sender),
    Known("what writing takes from a file (set-id bits, where it is not root who writes) goes when it is opened to write, and not when "
          "another writes by the same descriptor", is_set_id_left),
    Known("there is no RENAME_WHITEOUT, as on many file systems", is_whiteout, goes_on=False),
]


# What is wrong and not mended yet, by the kind of failure; counted by itself, neither as passed nor as failed.
OPEN = re.compile("|".join((
    r"status: ",  # spaces after the list of groups, and rights over files after setfsuid(2)
    r"caps: value, not value",  # the same rights
    r"exec\w*: ",  # the name that a program gets which was found from a directory's descriptor; unknown flags
    r"f?chown: value, not EPERM|f?chown: EROFS, not EPERM|futimens: EROFS, not EPERM",  # the order of errors in /proc
    r"statx?: value, not value",  # owners in /proc after a change of users
    r"open: EACCES, not (EISDIR|ENXIO)",  # the order of errors
    r"(connect|bind|sendto|sendmsg): \w+, not (EISCONN|EPROTOTYPE)",  # the same, of sockets whose duplicate is gone
    r"peercred: value, not value",  # of a socket that nobody has connected
    r"readlink: ENOENT, not EINVAL",
    r"f?utimens: EROFS, not value",  # times of devices are left alone without a word; /dev of the reference is read-only
)))


# ---- making sequences

class Generator:
    """Makes the calls of one sequence. `@S` in a line stands for the name of the sequence's directory.

    It keeps an idea of what there is, so that many calls succeed; where it is wrong, or does not look, they fail in some way.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.files = {}  # path below the sequence's directory: kind
        self.slots = {}  # number: kind and path
        self.cwd = ""  # none where it is not known
        self.has_programs = self.random.random() < 0.35
        self.weights = {name: weight * self.random.choice([0.3, 1, 1, 3]) for name, (weight, _) in CALLS.items()}
        if not self.has_programs:
            for name in ("exec", "vexec", "execat", "program", "script"):
                self.weights[name] *= 0.1 if name != "program" else 0
        if self.random.random() < 0.6:
            for name in ABOUT_SOCKETS:
                self.weights[name] *= 0.1
        else:
            for name in ABOUT_SOCKETS:
                self.weights[name] *= 2

    def chance(self, how_much):
        return self.random.random() < how_much

    def pick(self, some):
        return self.random.choice(some)

    # -- paths

    def existing(self, kinds):
        found = [path for path, kind in self.files.items() if not kinds or kind in kinds]
        return self.pick(found) if found else None

    def free(self):
        directories = ["", *(path for path, kind in self.files.items() if kind == "dir" and path.count("/") < 3)]
        for _ in range(5):
            path = os.path.join(self.pick(directories), self.pick(NAMES))
            if path not in self.files:
                break
        return path

    def slot_of(self, kinds):
        found = [slot for slot, (kind, _) in self.slots.items() if kind in kinds]
        return self.pick(found) if found else None

    def spelt(self, path, base):
        """One of the ways to say where it is."""
        if base is not None and base != "-":
            path = os.path.relpath(path, self.slots[base][1] or ".")
        else:
            within = [slot for slot, (_, open_path) in self.slots.items() if open_path == path]
            directory = self.slot_of(["dir"])
            chance = self.random.random()
            if within and chance < 0.12:
                directory = self.pick(["/proc/self/fd/", "/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"])
                return directory + str(10 + int(self.pick(within)))
            if directory and chance < 0.22:
                path = f"/proc/self/fd/{10 + int(directory)}/" + os.path.relpath(path, self.slots[directory][1] or ".")
            elif chance < 0.30:
                path = f"/@S/{path}"
            elif chance < 0.33:
                path = f"/proc/self/root/@S/{path}"
            elif self.cwd is None:
                path = f"/@S/{path}"
            elif chance < 0.37:
                path = "/proc/self/cwd/" + os.path.relpath(path, self.cwd or ".")
            elif chance < 0.40:
                path = "../@S/" + path if not self.cwd else f"/@S/{path}"
            else:
                path = os.path.relpath(path, self.cwd or ".")
        chance = self.random.random()
        if chance < 0.04:
            path += "/"
        elif chance < 0.05:
            path += "/."
        elif chance < 0.06:
            path = path.replace("/", "//", 1)
        elif chance < 0.08:
            path = path.replace("/", "/./", 1)
        elif chance < 0.10:
            path += self.pick(["/..", "/../" + self.pick(NAMES), "/" + self.pick(NAMES)])
        return path

    def path(self, is_new=False, kinds=(), base=None):
        knows = base in (None, "-") or base in self.slots and self.slots[base][0] == "dir"
        if knows and not self.chance(0.2):
            path = self.free() if is_new and not self.chance(0.12) else self.existing(kinds)
            if path:
                return self.spelt(path, base)
        return self.wild()

    def wild(self):
        """A path without a look at what there is."""
        pick = self.random
        path = "/".join(pick.choice(NAMES) for _ in range(pick.choice([1, 1, 1, 2, 2, 3])))
        chance = pick.random()
        if chance < 0.06:
            path += "/"
        elif chance < 0.08:
            path += "/."
        elif chance < 0.10:
            path += "/../" + pick.choice(NAMES)
        elif chance < 0.13:
            path += "/.."
        chance = pick.random()
        if chance < 0.10:
            path = f"/@S/{path}"
        elif chance < 0.20:
            path = pick.choice(FILES) + pick.choice(["", "", "/" + path, "/..", "/../" + path, "/."])
        elif chance < 0.24:
            path = f"/dev/fd/{10 + pick.randrange(6)}" + pick.choice(["", "/" + path])
        elif chance < 0.30:
            path = "/proc/self/cwd" + pick.choice(["", "/" + path, "/../" + path, "/" + path])
        elif chance < 0.34:
            path = "/proc/self/root" + pick.choice(["", f"/@S/{path}", f"/../@S/{path}", "/.."])
        elif chance < 0.36:
            path = f"/proc/thread-self/fd/{10 + pick.randrange(6)}"
        elif chance < 0.40:
            path = pick.choice([".", "..", "/", "%", "../..", "/@S", "/..", "./" + path])
        elif chance < 0.44:
            path = pick.choice(["/dev/null", "/dev/zero", "/dev/full", "/dev/null/", "/proc/self", "/proc",
                                "/proc/self/exe", "/proc/self/fd", "/dev/fd", "/proc/self/cwd/", "/proc/self/nothing"])
        elif chance < 0.445:
            path = pick.choice(["x" * 255, "x" * 256, "a/" * 2040 + "a"])
        return path

    def target(self):
        pick = self.random
        chance = pick.random()
        there = self.existing(()) or "a"
        if chance < 0.3:
            return f"/@S/{there}"
        if chance < 0.4:
            return "../" + there
        if chance < 0.65:
            return there
        if chance < 0.7:
            return pick.choice(NAMES) + "/"
        if chance < 0.75:
            return "nowhere"
        if chance < 0.85:
            return pick.choice([".", "..", "/", "/proc/self/cwd", "/proc/self/root/@S", "/dev/null", *FILES])
        return pick.choice(NAMES)

    # -- calls

    def argument(self, name, kind, base):
        pick = self.random
        kinds = KINDS_OF.get(name, ())
        if kind == "slot":
            wanted = self.slot_of(SLOTS_OF.get(name, ("file", "dir", "socket")))
            return wanted if wanted and self.chance(0.8) else pick.choice(SLOTS)
        if kind == "to-slot":
            return pick.choice(SLOTS)
        if kind in LISTS:
            return pick.choice(LISTS[kind])
        if kind == "N":
            return self.path(True, (), base)
        if kind == "X":
            if name == "unlink" and self.chance(0.8):
                kinds = ("file", "link", "fifo", "socket", "program", "script")
            return self.path(False, kinds, base)
        if kind == "T":
            return self.target()
        if kind == "D":
            directory = self.slot_of(["dir"])
            return directory if directory and self.chance(0.25) else pick.choice(SLOTS) if self.chance(0.04) else "-"
        if kind == "open-flags":
            flags = pick.choices([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3], [40, 20, 40, 1])[0] | os.O_NONBLOCK
            for flag, how_often in OPEN_FLAGS:
                if pick.random() < how_often:
                    flags |= flag
            return str(flags)
        if kind.startswith("at-"):
            flags = 0
            for flag, how_often in AT_FLAGS[kind]:
                if pick.random() < how_often:
                    flags |= flag
            return str(flags)
        if kind == "attribute-at":
            how = pick.choice("pplf")
            return how + " " + (self.argument(name, "slot", None) if how == "f" else self.path(False, ("file", "dir"), None))
        raise ValueError(kind)

    def recipe(self):
        """Calls that belong together."""
        pick = self.random
        one, other, third = pick.sample(SLOTS, 3)
        how = pick.random()
        if how < 0.35:
            directory = self.existing(("dir",)) or "."
            lines = [f"open - {self.spelt(directory, None)} {os.O_RDONLY | os.O_DIRECTORY} 0 {one}"]
            lines += pick.sample([f"list {one}", f"fchdir {one}", f"fstat {one}", f"fchmod {one} {pick.choice(LISTS['dir-mode'])}"], 2)
        elif how < 0.5:
            path = self.free()
            lines = [f"socket {one} {pick.choice(['stream', 'packet'])}", f"bind {one} {self.spelt(path, None)}", f"listen {one}",
                     f"socket {other} {pick.choice(['stream', 'stream', 'packet'])}",
                     f"connect {other} {self.spelt(path, None)}", f"accept {one} {third}", f"peercred {third}", f"peername {other}",
                     f"write {other} hello", f"read {third} 100", f"sockname {third}"]
        elif how < 0.6:
            path = self.free()
            lines = [f"socket {one} dgram", f"bind {one} {self.spelt(path, None)}", f"socket {other} dgram",
                     f"bind {other} {self.spelt(self.free(), None)}", f"sendto {other} {self.spelt(path, None)} x", f"recvfrom {one}",
                     f"sockname {one}"]
        elif how < 0.8:
            path = self.spelt(self.existing(("file", "dir")) or "a", None)
            name, value = pick.choice(LISTS["attribute"]), pick.choice(["x", "cap"])
            if name == CAPABILITY:
                value = "cap"
            lines = [f"setxattr p {path} {name} {value} {pick.choice(LISTS['attribute-flags'])}", f"getxattr p {path} {name}",
                     f"listxattr p {path}", f"removexattr l {path} {name}"]
        else:
            path = self.spelt(self.existing(("file",)) or "a", None)
            lines = [f"open - {path} {os.O_RDWR | pick.choice([0, os.O_CREAT, os.O_TRUNC, os.O_APPEND])} 0666 {one}",
                     f"unlink - {path} 0", f"fchown {one} {pick.choice(IDS)} {pick.choice(IDS)}", f"fchmod {one} {pick.choice(MODES)}",
                     f"fstat {one}",
                     f"link - /proc/self/fd/{10 + int(one)} - {self.free()} 1024"]
        return [self.add(line) for line in lines if self.chance(0.9)]

    def call(self, depth, in_thread=False):
        if self.chance(0.06):
            return self.recipe()
        while True:
            name = self.random.choices(list(self.weights), self.weights.values())[0]
            if name in BLOCKS and depth > 3:
                continue
            # Users are the process's, whichever thread changes them; libraries change them for all threads.
            if in_thread and (name.startswith(("setuid", "setgid", "setre", "setfsu", "setfsg", "setgroups")) or name == "keepcaps"):
                continue
            break
        kinds = CALLS[name][1]
        arguments, base = [], None
        for kind in kinds:
            arguments.append(self.argument(name, kind, base))
            base = arguments[-1] if kind == "D" else None
        if name == "unlink" and int(arguments[2]) & AT_REMOVEDIR and self.chance(0.7):
            arguments[0], arguments[1] = "-", self.path(False, ("dir",))
        if name in CHANGING or name.startswith("old-"):
            arguments = ["b" if argument.startswith("/dev") and "/fd/" not in argument else argument for argument in arguments]
        # An empty path does something with this flag only.
        for at, kind in enumerate(kinds):
            if kind.startswith("at-") and "D" in kinds and self.chance(0.06):
                where = kinds.index("D")
                if at > where + 1 and AT_EMPTY_PATH in dict(AT_FLAGS[kind]):
                    arguments[where] = self.argument(name, "slot", None)
                    arguments[where + 1] = "%"
                    arguments[at] = str(int(arguments[at]) | AT_EMPTY_PATH)
        line = " ".join([name, *arguments])
        if name not in BLOCKS:
            self.learn(name, line.split(" ")[1:])
            return [line]
        slots, cwd = dict(self.slots), self.cwd
        lines = [line]
        for _ in range(self.pick([1, 2, 3, 4, 6, 8, 12])):
            lines += self.call(depth + 1, name == "thread")
        if name != "thread":
            self.slots, self.cwd = slots, cwd
        return [*lines, "end"]

    def learn(self, name, words):
        """What is there now, if the call did what it says. Only plain names are looked at."""
        name = name.removeprefix("old-")
        names = [self.plain(word) for word in words]
        if name == "open" and len(words) > 4:
            flags, path = int(words[2]), names[1]
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                self.slots[words[4]] = ("file", None)
            elif path and (path in self.files or flags & os.O_CREAT and not flags & (os.O_DIRECTORY | os.O_PATH)):
                self.files.setdefault(path, "file")
                kind = {"dir": "dir", "link": "link", "fifo": "fifo"}.get(self.files[path], "file")
                self.slots[words[4]] = (kind, path)
        elif name in ("mkdir", "creat", "mknod", "symlink", "program", "script"):
            at = {"mkdir": -2, "symlink": -1}.get(name, 0)
            path = names[at]
            kind = {"mkdir": "dir", "creat": "file", "symlink": "link"}.get(name, name)
            if name == "mknod":
                kind = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "node"}.get(stat.S_IFMT(int(words[-3])), "file")
                path = names[1]
            if path:
                self.files.setdefault(path, kind)
        elif name == "bind" and names[1]:
            self.files.setdefault(names[1], "socket")
        elif name in ("unlink", "rmdir"):
            self.files.pop(names[0] if name == "rmdir" or len(words) == 1 else names[1], None)
        elif name in ("link", "rename"):
            old, new = (names[0], names[1]) if len(words) == 2 else (names[1], names[3])
            if old and new and old in self.files:
                moved = {path: kind for path, kind in self.files.items() if path == old or path.startswith(old + "/")}
                for path, kind in moved.items():
                    if name == "rename":
                        del self.files[path]
                    self.files[new + path[len(old):]] = kind
        elif name == "socket":
            self.slots[words[0]] = ("socket", None)
        elif name in ("dup", "dup2", "pass", "accept"):
            if words[0] in self.slots:
                self.slots[words[1]] = self.slots[words[0]]
        elif name == "close":
            self.slots.pop(words[0], None)
        elif name == "chdir":
            self.cwd = names[0] if names[0] and self.files.get(names[0]) == "dir" else self.cwd if self.chance(0.5) else None
        elif name == "fchdir":
            kind, path = self.slots.get(words[0], ("", None))
            self.cwd = path if kind == "dir" else self.cwd

    def plain(self, word):
        if word.startswith("/@S/"):
            path = word[4:]
        elif word.startswith("/") or self.cwd is None:
            return None
        else:
            path = os.path.join(self.cwd, word)
        path = os.path.normpath(path)
        return None if path.startswith("..") or path == "." else path

    def add(self, line):
        self.learn(line.split(" ")[0], line.split(" ")[1:])
        return line

    def start(self):
        """Files and directories of different users."""
        lines = []
        if self.chance(0.7):
            lines.append(f"chmod - . {self.pick(['0777', '01777', '02777', '03777'])} 0")
        for name in self.random.sample(NAMES, 3):
            lines.append(self.add(f"mkdir - {name} 0777"))
            if self.chance(0.7):
                lines.append(f"chown - {name} {self.pick(IDS)} {self.pick(IDS)} 0")
            if self.chance(0.8):
                lines.append(f"chmod - {name} {self.pick(['0777', '01777', '02775', '0755', '0750', '0700', '03777', '0711'])} 0")
            for inner in self.random.sample(NAMES, 2):
                path = f"{name}/{inner}"
                if self.chance(0.25):
                    lines.append(self.add(f"mkdir - {path} 0777"))
                elif self.chance(0.6):
                    lines.append(self.add(f"open - {path} {os.O_CREAT | os.O_RDWR} {self.pick(MODES)} {self.pick(SLOTS)}"))
                    if self.chance(0.7):
                        lines.append(f"chown - {path} {self.pick(IDS)} {self.pick(IDS)} 0")
        if self.has_programs:
            lines.append(self.add(f"program p {self.pick(['0755', '0755', '04755', '02755', '06755', '0711', '0644', '04750'])}"))
            lines.append(f"chown - p {self.pick(IDS)} {self.pick(IDS)} 0")
            if self.chance(0.5):
                lines.append(f"chmod - p {self.pick(['0755', '04755', '02755', '06755', '0711', '04750'])} 0")
        return lines

    def sequence(self, length):
        lines = self.start()
        while len(lines) < length:
            if self.chance(0.08):
                lines.append(f"as {self.pick(IDS[1:])} {self.pick(IDS)} {self.pick(GROUPS)}")
                slots, cwd = dict(self.slots), self.cwd
                for _ in range(self.pick([3, 6, 10, 20])):
                    lines += self.call(1)
                self.slots, self.cwd = slots, cwd
                lines.append("end")
            else:
                lines += self.call(0)
        return lines


ABOUT_SOCKETS = ("socket", "bind", "connect", "listen", "accept", "sockname", "peername", "peercred", "sendto", "recvfrom")
# What calls are about, in most cases.
KINDS_OF = {"chdir": ("dir",), "chroot": ("dir",), "readlink": ("link",), "exec": ("program", "script"), "vexec": ("program", "script"),
            "execat": ("program", "script"), "connect": ("socket",), "sendto": ("socket",), "truncate": ("file",), "ls": ("dir",),
            "old-rmdir": ("dir",), "old-unlink": ("file", "link", "fifo", "socket"), "link": ("file", "link", "fifo", "program"),
            "old-link": ("file", "link", "fifo")}
SLOTS_OF = {**dict.fromkeys(ABOUT_SOCKETS, ("socket",)), **dict.fromkeys(("fchdir", "list"), ("dir",)),
            **dict.fromkeys(("read", "pread", "write", "pwrite", "lseek", "ftruncate", "fallocate"), ("file", "fifo"))}
OPEN_FLAGS = [(os.O_CREAT, 0.35), (os.O_EXCL, 0.08), (os.O_TRUNC, 0.12), (os.O_APPEND, 0.1), (os.O_DIRECTORY, 0.13),
              (os.O_NOFOLLOW, 0.13), (os.O_PATH, 0.09), (os.O_CLOEXEC, 0.1), (os.O_NOATIME, 0.03), (os.O_TMPFILE, 0.04)]
AT_FLAGS = {
    "at-follow": [(AT_SYMLINK_NOFOLLOW, 0.3), (AT_EMPTY_PATH, 0.1), (0x8000000, 0.005)],
    "at-link": [(AT_SYMLINK_FOLLOW, 0.3), (AT_EMPTY_PATH, 0.1), (0x8000000, 0.005)],
    "at-access": [(AT_SYMLINK_NOFOLLOW, 0.2), (AT_EACCESS, 0.3), (AT_EMPTY_PATH, 0.1), (0x8000000, 0.005)],
    "at-remove": [(AT_REMOVEDIR, 0.3), (0x8000000, 0.005)],
    "at-mode": [(AT_SYMLINK_NOFOLLOW, 0.2), (AT_EMPTY_PATH, 0.1), (0x8000000, 0.005)],
}

LISTS = {
    "mode": MODES, "dir-mode": ["0777", "0755", "01777", "02775", "0700", "0000", "04777"], "id": IDS + ["-1"], "user": IDS,
    "groups": GROUPS, "slot": SLOTS, "size": ["0", "1", "7", "5000"], "text": ["x", "hello", "other"],
    "count": ["1", "3", "100"], "offset": ["0", "2", "10"], "when": ["now", "omit", "1000", "86400", "999999999"],
    "right": ["0", "1", "2", "4", "7", "6", "8"], "umask": ["0", "022", "077", "027", "0777"],
    "rename-flags": ["0"] * 8 + ["1", "1", "2", "2", "3", "4"], "attribute-flags": ["0", "0", "0", "1", "2", "3"],
    "attribute": ["user.a", "user.a", "user.b", CAPABILITY, CAPABILITY, "user.", "trusted.a", "security.x"],
    "value": ["x", "value", "cap", "cap"], "kind": ["stream", "dgram", "packet"],
    "node": [f"{kind | int(mode, 8)} 0 0" for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, 0)
             for mode in ("0644", "0600", "02755", "0777")]
            + [f"{stat.S_IFCHR | 0o666} 1 {minor}" for minor in (3, 5, 7)]
            + [f"{stat.S_IFDIR | 0o755} 0 0", f"{stat.S_IFLNK | 0o777} 0 0"],
    "file-flags": ["0", str(os.O_APPEND), str(os.O_NONBLOCK), str(os.O_APPEND | os.O_NONBLOCK), str(os.O_NOATIME)],
    "time": ["1000", "86400", "999999999"], "fallocate-mode": ["0", "1", "3"], "whence": ["0", "0", "1", "2"], 
    # There are no processes that share these without being threads: nobody knows of them (crates/sandbox/src/filter.rs).
    "unsharing": [str(CLONE_FS), str(CLONE_FILES), str(CLONE_FS | CLONE_FILES)],
    "who": ["parent", "parent", "self"], "signal": ["0", "23", "28"], "bit": ["0", "1"], "cloexec": ["0", "0", str(os.O_CLOEXEC)],
    "interpreter": ["/@S/p", "/@S/p", "/@S/p", "p", "./p", "/@S/b", "/nowhere", "/@S/p/", "/proc/self/exe", "/@S/../@S/p", "/proc/self/fd/10"],
    "option": ["%", "-x"], "statx-mask": ["4095", "2047"], "%": ["%"], "program-mode": ["0755", "0711", "04755", "02755", "06755", "0644", "04111", "0700"],
}

CALLS = {
    "open": (30, ["D", "X", "open-flags", "mode", "to-slot"]), "close": (2, ["slot"]), "dup": (2, ["slot", "to-slot"]),
    "dup2": (3, ["slot", "to-slot", "cloexec"]), "getfl": (1, ["slot"]), "setfl": (1, ["slot", "file-flags"]),
    "getfd": (0.5, ["slot"]), "setfd": (0.5, ["slot", "bit"]), "pass": (1, ["slot", "to-slot"]), "fds": (0.5, []),
    "read": (2, ["slot", "count"]), "pread": (1, ["slot", "count", "offset"]), "write": (4, ["slot", "text"]),
    "pwrite": (1, ["slot", "text", "offset"]), "lseek": (1, ["slot", "offset", "whence"]),
    "ftruncate": (1.5, ["slot", "size"]), "fsync": (0.3, ["slot"]),
    "stat": (10, ["D", "X", "at-follow"]), "fstat": (4, ["slot"]), "statx": (3, ["D", "X", "at-follow", "statx-mask"]),
    "statfs": (1, ["X"]), "fstatfs": (0.5, ["slot"]), "access": (4, ["D", "X", "right", "at-access"]),
    "oldaccess": (1, ["D", "X", "right"]), "readlink": (4, ["D", "X"]), "fdlink": (3, ["slot"]), "getcwd": (2, []),
    "ls": (3, ["D", "X"]), "list": (2, ["slot"]), "chdir": (5, ["X"]), "fchdir": (2, ["slot"]), "chroot": (0.6, ["X"]),
    "mkdir": (10, ["D", "N", "dir-mode"]), "mknod": (5, ["D", "N", "node"]), "symlink": (8, ["T", "D", "N"]),
    "link": (8, ["D", "X", "D", "N", "at-link"]), "unlink": (6, ["D", "X", "at-remove"]),
    "rename": (10, ["D", "X", "D", "N", "rename-flags"]), "chmod": (6, ["D", "X", "mode", "at-mode"]),
    "fchmod": (2, ["slot", "mode"]), "chown": (5, ["D", "X", "id", "id", "at-follow"]), "fchown": (1.5, ["slot", "id", "id"]),
    "utimens": (3, ["D", "X", "when", "when", "at-follow"]), "futimens": (1, ["slot", "%", "when", "when"]),
    "truncate": (2, ["X", "size"]), "setxattr": (3, ["attribute-at", "attribute", "value", "attribute-flags"]),
    "getxattr": (2, ["attribute-at", "attribute"]), "listxattr": (1.5, ["attribute-at"]),
    "removexattr": (1, ["attribute-at", "attribute"]), "same": (2, ["X", "X"]), "umask": (1, ["umask"]), "ids": (1.5, []),
    "status": (0.5, []), "caps": (0.5, []), "keepcaps": (0.2, ["bit"]), "setuid": (0.5, ["id"]), "setgid": (0.5, ["id"]),
    "setreuid": (0.6, ["id", "id"]), "setregid": (0.5, ["id", "id"]), "setresuid": (0.8, ["id", "id", "id"]),
    "setresgid": (0.6, ["id", "id", "id"]), "setfsuid": (0.5, ["id"]), "setfsgid": (0.4, ["id"]),
    "setgroups": (0.5, ["groups"]), "unshare": (0.3, ["unsharing"]), "kill": (0.7, ["who", "signal"]),
    "program": (1, ["N", "program-mode"]), "script": (1, ["N", "interpreter", "option", "program-mode"]),
    "socket": (1.5, ["to-slot", "kind"]), "bind": (2, ["slot", "N"]), "connect": (2, ["slot", "X"]), "listen": (1, ["slot"]),
    "accept": (0.7, ["slot", "to-slot"]), "sockname": (0.7, ["slot"]), "peername": (0.5, ["slot"]), "peercred": (0.5, ["slot"]),
    "sendto": (1, ["slot", "X", "text"]), "recvfrom": (1, ["slot"]),
    "old-open": (1, ["X", "open-flags"]), "old-creat": (1, ["N", "mode"]), "old-stat": (1, ["X"]), "old-lstat": (1, ["X"]),
    "old-access": (0.5, ["X", "right"]), "old-mkdir": (1, ["N", "dir-mode"]), "old-rmdir": (1, ["X"]), "old-unlink": (1, ["X"]),
    "old-rename": (1, ["X", "N"]), "old-link": (1, ["X", "N"]), "old-symlink": (1, ["T", "N"]), "old-chmod": (1, ["X", "mode"]),
    "old-chown": (0.7, ["X", "id", "id"]), "old-lchown": (0.7, ["X", "id", "id"]), "old-utimes": (0.5, ["X", "time", "time"]),
    "fallocate": (0.3, ["slot", "fallocate-mode", "offset", "size"]),
    "fork": (1, []), "as": (2.5, ["user", "id", "groups"]), "thread": (0.8, []),
    "exec": (4, ["X"]), "vexec": (2, ["X"]), "execat": (2, ["D", "X", "at-follow"]),
}
# What is outside of the sequence's directory is there for all sequences.
CHANGING = ("mkdir", "mknod", "symlink", "link", "unlink", "rename", "chmod", "chown", "utimens", "setxattr", "removexattr")


def generate(seed, length):
    sequences, total = [], 0
    pick = random.Random(f"build {seed}")
    while total < length:
        sequence = Generator(f"{seed} {len(sequences)}").sequence(pick.choice([15, 30, 30, 60]))
        sequences.append(sequence)
        total += len(sequence)
    return sequences


# ---- carrying them out

def name_of(number):
    return f"s{number:04}"


class Build:
    """Sequences that are built together, and what has to come out."""

    def __init__(self, options, sequences):
        self.options, self.sequences = options, sequences
        self.place = tempfile.mkdtemp(dir=options.work)
        os.chmod(self.place, 0o755)
        text = "".join(f"@ {name_of(number)}\n" + "".join(line.replace("@S", name_of(number)) + "\n" for line in sequence)
                       for number, sequence in enumerate(sequences))
        for directory in ("context", "root"):
            for name in ("", "proc", "dev", "sys", "etc", "tmp"):
                os.mkdir(self.at(directory, name))
            shutil.copy(options.program, self.at(directory, "calls"))
            os.chmod(self.at(directory, "calls"), 0o755)
            with open(self.at(directory, "script"), "w", encoding="ascii") as script:
                script.write(text)
        with open(self.at("Dockerfile"), "w", encoding="ascii") as dockerfile:
            dockerfile.write('FROM scratch\nCOPY . /\nRUN ["/calls", "/script", "/log"]\n')
        os.mkdir(self.at("out"))
        os.chmod(self.at("out"), 0o777)
        self.refer()

    def close(self):
        shutil.rmtree(self.place, ignore_errors=True)

    def at(self, *names):
        return os.path.join(self.place, *names)

    def refer(self):
        root = self.at("root")
        done = subprocess.run([self.options.program, "--enter", root, "/calls", "/script", "/log"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"the reference ended with status {done.returncode}: {done.stdout!r}")
        with open(self.at("root", "log"), encoding="ascii") as log:
            self.log = parse_log(log)
        self.tree = look(root)
        shutil.rmtree(root, ignore_errors=True)

    def build(self, name):
        """What is wrong, by number of the sequence (none: of all)."""
        image = self.at("out", f"{name}.tar")
        words = shlex.split(self.options.commands[name]) + [
            "--file", self.at("Dockerfile"), "--output", f"type=tar,dest={image}", self.at("context")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              cwd=self.place, check=False)
        if done.returncode:
            return {None: Difference("build", f"the build ended with status {done.returncode}:\n"
                                     + done.stdout.decode(errors="replace")[-3000:])}
        with tarfile.open(image, errorlevel=0, encoding="utf-8", errors="surrogateescape") as tar:
            log = parse_log(tar.extractfile("log").read().decode("ascii").splitlines(keepends=True))
            tree = look_tar(tar)
        os.unlink(image)
        wrong = {}
        for number, sequence in enumerate(self.sequences):
            directory = name_of(number)
            found = compare(name, sequence, directory, self.log.get(directory, []), log.get(directory, []),
                            self.tree.get(directory, {}), tree.get(directory, {}))
            if found and not (self.options.without and re.search(self.options.without, found.kind)):
                wrong[number] = found
        return wrong


class Difference:
    def __init__(self, kind, text):
        self.kind, self.text = kind, text


def parse_log(lines):
    sequences, current = {}, None
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("@ "):
            current = sequences.setdefault(line[2:], [])
        elif current is not None:
            current.append(line)
    return sequences


def result(line):
    return re.sub(r"\bE(\d+)", lambda number: errno.errorcode.get(int(number[1]), number[0]), line)


def kind_of(line):
    """What of a result tells differences apart."""
    text = result(line).partition(" ")[2]
    return text if re.fullmatch(r"E[A-Z0-9]+", text) else "value"


def compare(name, sequence, directory, wanted, found, wanted_tree, found_tree):
    sequence = Lines(sequence, wanted)
    for at in range(max(len(wanted), len(found))):
        one = wanted[at] if at < len(wanted) else "nothing"
        other = found[at] if at < len(found) else "nothing"
        if one == other:
            continue
        number = one.split(" ")[0] if one != "nothing" else other.split(" ")[0]
        line = sequence[int(number)] if number.isdigit() and int(number) < len(sequence) else number
        words = line.split(" ")
        is_call = number.isdigit() and one.split(" ")[0] == other.split(" ")[0]
        known = is_call and find_known(name, sequence, int(number), one, other)
        if known and known.goes_on:
            continue
        if known:
            return None
        if number == "=" and is_set_id_left(sequence, len(sequence), ["="], one, other):
            continue
        if is_call:
            kind = f"{words[0]}: {kind_of(one)}, not {kind_of(other)}"
        else:
            kind = f"{words[0]}: other lines" if number != "=" else "the tree within"
        text = f"line {number}: {line}\n    kernel: {result(one)}\n    found:  {result(other)}"
        return Difference(kind, text.replace(directory, "@S"))
    for path in sorted(wanted_tree.keys() | found_tree.keys()):
        one, other = wanted_tree.get(path), found_tree.get(path)
        if one and other and is_set_id_left(sequence, len(sequence), ["="], f"{one[0][2:]} {one[1:]}", f"{other[0][2:]} {other[1:]}"):
            continue
        if one != other:
            return Difference("the image's tree", f"{path}\n    kernel: {one}\n    found:  {other}".replace(directory, "@S"))
    return None


def find_known(name, sequence, at, wanted, found):
    words = sequence[at].split(" ")
    return next((known for known in KNOWN if re.match(known.places, name) and known.test(sequence, at, words, wanted, found)), None)


def shown_time(seconds):
    return int(seconds) if seconds < LONG_AGO else "now"


def look(root):
    """Every file below a sequence's directory, by sequence."""
    trees, links = {}, {}
    for name in os.listdir(root):
        if not re.fullmatch(r"s\d+", name):
            continue
        tree = trees.setdefault(name, {})
        pending = [name]
        while pending:
            path = pending.pop()
            full = os.path.join(root, path)
            is_like = os.lstat(full)
            mode, content = is_like.st_mode, None
            if stat.S_ISSOCK(mode):
                continue  # no archive has them
            if stat.S_ISDIR(mode):
                pending += [os.path.join(path, inner) for inner in os.listdir(full)]
            elif stat.S_ISLNK(mode):
                content = os.readlink(full)
            elif stat.S_ISREG(mode):
                with open(full, "rb") as file:
                    content = shown_content(file.read())
            elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                content = (os.major(is_like.st_rdev), os.minor(is_like.st_rdev))
            attributes = sorted((key, os.getxattr(full, key, follow_symlinks=False).hex())
                                for key in os.listxattr(full, follow_symlinks=False) if key == CAPABILITY and stat.S_ISREG(mode))
            tree[path] = [oct(mode if not stat.S_ISLNK(mode) else stat.S_IFLNK | 0o777), is_like.st_uid, is_like.st_gid, content,
                          shown_time(is_like.st_mtime), attributes]
            if not stat.S_ISDIR(mode):
                links.setdefault((name, is_like.st_ino), []).append(path)
    with_links(trees, links)
    return trees


def shown_content(content):
    return content.decode(errors="replace") if len(content) < 100 else f"{len(content)} {hashlib.sha256(content).hexdigest()[:12]}"


def with_links(trees, links):
    for (name, _), paths in links.items():
        for path in paths:
            trees[name][path].append(sorted(paths))


KINDS = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.REGTYPE: stat.S_IFREG, tarfile.FIFOTYPE: stat.S_IFIFO,
         tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}


def look_tar(tar):
    trees, links, first = {}, {}, {}
    for member in tar:
        path = os.path.normpath("/" + member.name)[1:]
        name = path.split("/")[0]
        if not re.fullmatch(r"s\d+", name):
            continue
        tree = trees.setdefault(name, {})
        if member.islnk():
            origin = first[os.path.normpath("/" + member.linkname)[1:]]
            tree[path] = list(tree[origin])
            links[name, origin].append(path)
            first[path] = origin
            continue
        kind = KINDS.get(member.type, 0)
        mode = kind | member.mode if kind != stat.S_IFLNK else kind | 0o777
        content = None
        if member.issym():
            content = member.linkname
        elif member.isreg():
            content = shown_content(tar.extractfile(member).read())
        elif member.isdev() and not member.isfifo():
            content = (member.devmajor, member.devminor)
        attributes = sorted((key[len("SCHILY.xattr."):], value.encode("utf-8", "surrogateescape").hex())
                            for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr."))
        tree[path] = [oct(mode), member.uid, member.gid, content, shown_time(member.mtime), attributes]
        if kind != stat.S_IFDIR:
            first[path] = path
            links[name, path] = [path]
    with_links(trees, links)
    return trees


# ---- many builds

def fails(options, name, sequences):
    build = Build(options, sequences)
    try:
        return build.build(name)
    finally:
        build.close()


def end_of_block(sequence, at):
    depth = 0
    for place in range(at, len(sequence)):
        word = sequence[place].split(" ")[0]
        if word in BLOCKS:
            depth += 1
        elif word == "end":
            depth -= 1
            if depth == 0:
                return place
    return len(sequence)


def smaller(sequence):
    """Sequences with one or more calls less, and with blocks that are carried out by the process itself."""
    size = len(sequence)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(sequence), size):
            yield sequence[:start] + sequence[start + size:]
    for at, line in enumerate(sequence):
        if line.split(" ")[0] in BLOCKS:
            end = end_of_block(sequence, at)
            yield sequence[:at] + sequence[end + 1:]
            yield sequence[:at] + sequence[at + 1:end] + sequence[end + 1:]
            yield [*sequence[:at], "fork", *sequence[at + 1:]] if line != "fork" else sequence
    if len(sequence) <= 8:
        for one in range(len(sequence)):
            for other in range(one):
                yield [line for at, line in enumerate(sequence) if at not in (one, other)]


def shrink(options, name, sequence, difference):
    """Leaves out calls as long as it still fails in the same way."""
    alone = fails(options, name, [sequence])
    if 0 not in alone:
        difference.text += "\n  (only after other sequences of its build)"
        return sequence, difference
    while True:
        candidates = [one for one in smaller(sequence) if one != sequence][:900]
        found = same_failures(options, name, candidates, difference)
        # Of lines that can be missing one at a time most can be missing together.
        without = [at for at in range(len(sequence)) if any(one == sequence[:at] + sequence[at + 1:] for one, _ in found)]
        together = [[line for at, line in enumerate(sequence) if at not in some]
                    for some in (set(without), set(without[::2]), set(without[1::2]), set(without[:len(without) // 2]),
                                 set(without[len(without) // 2:])) if len(some) > 1]
        found += same_failures(options, name, together, difference)
        if not found:
            return sequence, difference
        sequence, difference = min(found, key=lambda one: len(one[0]))


def same_failures(options, name, candidates, difference):
    if not candidates:
        return []
    tried = fails(options, name, candidates)
    return [(candidates[number], other) for number, other in tried.items() if number is not None and other.kind == difference.kind]


def try_seed(job):
    options, seed = job
    sequences = generate(seed, options.batch)
    results = []
    build = None
    try:
        build = Build(options, sequences)
        for name in options.commands:
            begin = time.monotonic()
            wrong = build.build(name)
            results.append((name, wrong, time.monotonic() - begin))
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        results.append(("the reference", {None: Difference("reference", str(error))}, 0))
    finally:
        if build:
            build.close()
    return seed, sequences, results


def shrunk(job):
    options, name, seed, number, sequence, difference = job
    return report(name, seed, number, *shrink(options, name, sequence, difference))


def report(name, seed, number, sequence, difference):
    return (f"FAIL  {name}, seed {seed}, sequence {number}: {difference.kind}\n"
          + "".join(f"      {at:3} {line}\n" for at, line in enumerate(sequence)) + f"  {difference.text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=10_000, help="so many calls in one build")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", type=int, default=5, help="so many kinds of failures of each NAME are cut down and shown")
    parser.add_argument("--without", metavar="REGEX", help="leave out failures of these kinds, to see others")
    parser.add_argument("--replay", metavar="FILE", help="instead of random sequences one, as it was printed")
    parser.add_argument("builders", nargs="+", metavar="NAME=COMMAND")
    options = parser.parse_args()
    options.commands = dict(builder.split("=", 1) for builder in options.builders)
    if options.replay:
        return replay(options)
    seeds = range(options.seed, options.seed + max(1, options.calls // options.batch))
    passed = failed = calls = still_open = 0
    shown = {name: {} for name in options.commands}
    spent = dict.fromkeys(options.commands, 0.0)
    large = []
    with multiprocessing.Pool(options.jobs) as pool:
        for seed, sequences, results in pool.imap_unordered(try_seed, [(options, seed) for seed in seeds]):
            calls += sum(map(len, sequences))
            for name, wrong, seconds in results:
                known = [number for number, difference in wrong.items() if number is not None and OPEN.match(difference.kind)]
                for number in known:
                    wrong.pop(number)
                still_open += len(known)
                count = len(sequences) - len(known) if None in wrong else len(wrong)
                failed += count
                passed += len(sequences) - count - len(known)
                spent[name] = spent.get(name, 0) + seconds
                if None in wrong:
                    print(f"FAIL  {name}, seed {seed}: {wrong.pop(None).text}", flush=True)
                for number, difference in wrong.items():
                    kinds = shown[name]
                    kinds[difference.kind] = kinds.get(difference.kind, 0) + 1
                    if kinds[difference.kind] == 1 and len(kinds) <= options.show:
                        large.append((options, name, seed, number, sequences[number], difference))
        for text in pool.imap_unordered(shrunk, large):
            print(text, flush=True)
    for name, kinds in shown.items():
        for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
            print(f"{count:5} x {name}: {kind}")
    print(f"{calls} calls; seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()), file=sys.stderr)
    print(f"{still_open} sequences differ in what is known and not mended yet (OPEN)")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def replay(options):
    with open(options.replay, encoding="ascii") as file:
        text = file.read()
    sequence = [re.sub(r"^\s*\d+\s+", "", line) for line in text.splitlines() if line.strip()]
    wrong = 0
    for name in options.commands:
        for number, difference in fails(options, name, [sequence]).items():
            wrong += 1
            print(report(name, "none", number, sequence, difference))
    print(f"{len(options.commands) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
