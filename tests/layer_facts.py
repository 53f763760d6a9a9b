#!/usr/bin/env python3
"""Checks the files of an image against what its Dockerfile says in comments that begin with `# expect`.

    layer_facts.py IMAGE BASE DOCKERFILE

IMAGE and BASE are references in a registry (http://HOST:PORT/NAME:TAG) or OCI layouts. A fact is

    # expect PATH KIND MODE USER:GROUP [CAPABILITY=SETS]

with KIND file, dir, link, fifo, char or block, MODE four octal digits (or `-` for a link), and users and groups by their name
in the image's own passwd and group or as numbers. A file with set capabilities must be named with its one capability and the
sets (`net_bind_service=p`), others must have none. What a builder leaves behind is wrong in every image. The exit status is
1 when a fact is wrong, and each that is has a line.
"""
import base64
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import flatten  # noqa: E402
import tide_image  # noqa: E402

KINDS = {"link": "symlink"}
CAPABILITIES = {"chown": 0, "net_bind_service": 10, "net_raw": 13}
LEFT = ("/proc/*", "/sys/*", "/dev/*", "/run/secrets*", "/.dockerenv", "/run/.containerenv", "/etc/hosts", "/etc/hostname",
        "/etc/resolv.conf", "/kaniko*", "/zuwai*", "/context*", "/workspace*")


def facts(dockerfile):
    with open(dockerfile, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("# expect "):
                path, kind, mode, owner, *capability = line.split()[2:]
                yield path, kind, mode, owner, capability[0] if capability else None


def number(names, name):
    return int(name) if name.isdigit() else names.get(name, f"nobody called {name}")


def capability(value):
    """security.capability of one capability, in the layout of linux/capability.h revision 2, as base64."""
    if value is None:
        return None
    name, _, sets = value.partition("=")
    bit = 1 << CAPABILITIES[name]
    permitted, inheritable = bit if "p" in sets else 0, bit if "i" in sets else 0
    raw = struct.pack("<IIIII", 0x02000000 | ("e" in sets), permitted, inheritable, 0, 0)
    return base64.b64encode(raw).decode()


def wrong(image, fact, users, groups):
    path, kind, mode, owner, wanted = fact
    inode = image.tree.nodes.get(path)
    if inode is None:
        return "is missing"
    user, group = owner.split(":")
    expected = [KINDS.get(kind, kind), number(users, user), number(groups, group), capability(wanted)]
    found = [inode.kind, inode.uid, inode.gid, inode.xattrs.get("security.capability")]
    if mode != "-":
        expected.append(mode)
        found.append(f"{inode.mode:04o}")
    return None if found == expected else f"expected {expected}, found {found}"


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    flatten.TEXT_LIMIT = 1 << 16
    base = flatten.load(sys.argv[2])
    image = flatten.load(sys.argv[1], cache={base.diff_ids(): base})
    users, groups = tide_image.names(image, "/etc/passwd"), tide_image.names(image, "/etc/group")
    known = list(facts(sys.argv[3]))
    lines = [f"{fact[0]}: {reason}" for fact in known if (reason := wrong(image, fact, users, groups))]
    lines += [f"{path}: was left behind" for path in flatten.describe(image, base)["files"] if flatten.ignored(path, LEFT)]
    for line in lines:
        print(f"  WRONG {line}")
    print(f"  {len(known)} facts, {len(lines)} wrong")
    return 1 if lines or not known else 0


if __name__ == "__main__":
    sys.exit(main())
