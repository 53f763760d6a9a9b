#!/usr/bin/env python3
"""Checks an image of examples/tide: its config, its owners, modes and set-id bits, and that nothing else got in.

    tide_image.py IMAGE BASE

IMAGE and BASE are references in a registry (http://HOST:PORT/NAME:TAG) or OCI layouts. The exit status is 1 when a fact is
wrong, and each that is has a line. The expectations come from what Debian's packages do in a plain chroot, not from a builder.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import flatten  # noqa: E402

flatten.TEXT_LIMIT = 1 << 16  # passwd and group are read from the description

CONFIG = {
    "User": "tide",
    "Entrypoint": ["tide"],
    "Cmd": ["serve"],
    "WorkingDir": "/var/lib/tide",
    "ExposedPorts": ["8080/tcp"],
    "Volumes": ["/var/lib/tide/data"],
    "StopSignal": "SIGINT",
    "Healthcheck": {"Interval": 30_000_000_000, "Test": ["CMD", "tide", "check"], "Timeout": 3_000_000_000},
    "Labels": {"org.opencontainers.image.title": "tide", "org.opencontainers.image.version": "1.0.0"},
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TIDE_CONFIG=/etc/tide.conf"],
}
# path: type, mode, owner's name, group's name; the names are looked up in the image's own passwd and group
FILES = {
    "/usr/local/bin/tide": ("file", "0755", "root", "root"),
    "/etc/tide.conf": ("file", "0640", "tide", "tide"),
    "/var/lib/tide": ("dir", None, "tide", "tide"),
    "/usr/bin/ssh-agent": ("file", "2755", "root", "_ssh"),
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper": ("file", "4754", "root", "messagebus"),
    "/etc/shadow": ("file", "0640", "root", "shadow"),
    "/etc/passwd": ("file", "0644", "root", "root"),
}
# What a builder may leave behind, and the compiler of the first stage.
ABSENT = ("/proc/", "/sys/", "/dev/", "/run/secrets", "/.dockerenv", "/run/.containerenv", "/etc/hosts", "/etc/hostname",
          "/etc/resolv.conf", "/kaniko", "/zuwai", "/context", "/workspace", "/usr/bin/gcc", "/src")


def names(image, path):
    """{name: number} of the image's /etc/passwd or /etc/group."""
    inode = image.tree.nodes.get(path)
    lines = (inode.text or "").splitlines() if inode else []
    return {line.split(":")[0]: int(line.split(":")[2]) for line in lines if line.count(":") >= 3}


def config_facts(description):
    for key, expected in CONFIG.items():
        found = description["config"].get(key)
        yield f"config {key}", None if found == expected else f"expected {expected!r}, found {found!r}"


def file_facts(image, description):
    users, groups = names(image, "/etc/passwd"), names(image, "/etc/group")
    for path, (kind, mode, user, group) in FILES.items():
        expected = {"type": kind, "uid": users.get(user, f"no user {user}"), "gid": groups.get(group, f"no group {group}")}
        if mode:
            expected["mode"] = mode
        entry = description["files"].get(path)
        found = entry and {key: entry.get(key) for key in expected}
        yield f"file {path}", None if found == expected else f"expected {expected}, found {found}"
    left = [p for p in description["files"] if p.startswith(ABSENT)]
    yield "nothing left behind", f"found {left[:5]}" if left else None


def main():
    parser = argparse.ArgumentParser(description="Check an image of examples/tide.")
    parser.add_argument("image")
    parser.add_argument("base")
    args = parser.parse_args()
    base = flatten.load(args.base)
    cache = {base.diff_ids(): base}
    image = flatten.load(args.image, cache=cache)
    description = flatten.describe(image, base)
    facts = [*config_facts(description), *file_facts(image, description)]
    for fact, wrong in facts:
        if wrong:
            print(f"  WRONG {fact}: {wrong}")
    failed = sum(wrong is not None for _, wrong in facts)
    print(f"  {len(facts) - failed} of {len(facts)} facts hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
