#!/usr/bin/env python3
"""Compares two images byte for byte and says where they differ.

    image_diff.py EXPECTED ACTUAL [--limit N]

EXPECTED and ACTUAL are references in a registry (http://HOST:PORT/NAME:TAG), OCI layouts or archives. Looked at are the
manifest, the config and every layer: the order of its entries and of each its header, pax records and content. Differences
go to standard output, one per line, at most N (20) for each layer; the exit status is 1 when there is one, 2 when an image
cannot be read. Nothing is tolerated: for what an image means, and not how it is written, there is conformance/flatten.py.
"""
import argparse
import hashlib
import json
import os
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import flatten  # noqa: E402

FIELDS = ("type", "mode", "uid", "gid", "uname", "gname", "size", "mtime", "linkname", "devmajor", "devminor")


class Bytes:
    """An image as it is stored: its manifest, its config and a way to its layers."""

    def __init__(self, reference):
        opener = flatten.LayoutDir if os.path.isdir(reference) else flatten.LayoutTar if os.path.isfile(reference) else flatten.Registry
        self.source = opener(reference)
        self.manifest = flatten.pick_manifest(self.source, None, True)
        self.config = json.loads(flatten.read_blob(self.source, self.manifest["config"], True))

    def layers(self):
        return self.manifest["layers"]

    def entries(self, layer):
        """[(name, {property: value})] of one layer, in order."""
        found = []
        with self.source.blob(layer["digest"]) as blob:
            stream = flatten.decompressor(blob)
            with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as tar:
                for member in tar:
                    entry = {field: getattr(member, field) for field in FIELDS}
                    entry["mode"] = f"{member.mode:04o}"
                    entry["type"] = member.type.decode("ascii", "replace")
                    entry["pax"] = dict(sorted(member.pax_headers.items()))
                    if member.isreg():
                        entry["sha256"] = hashlib.file_digest(tar.extractfile(member), "sha256").hexdigest()[:16]
                    found.append((member.name, entry))
        return found


def values(path, a, b):
    """Lines for the places where two JSON documents differ."""
    if a == b:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b)):
            yield from values(f"{path}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b)):
            yield from values(f"{path}[{number}]", x, y)
    else:
        yield f"{path}: expected {json.dumps(a)}, found {json.dumps(b)}"


def layer_lines(number, a, b):
    """Lines for two lists of entries."""
    where = f"layer {number}"
    first, second = dict(a), dict(b)
    for name, entry in a:
        if name not in second:
            yield f"{where}: {name!r}: missing ({entry['type']} {entry['mode']})"
        elif entry != second[name]:
            other = second[name]
            wrong = [f"{key} {entry.get(key)!r} became {other.get(key)!r}"
                     for key in sorted(set(entry) | set(other)) if entry.get(key) != other.get(key)]
            yield f"{where}: {name!r}: {', '.join(wrong)}"
    for name, entry in b:
        if name not in first:
            yield f"{where}: {name!r}: not expected ({entry['type']} {entry['mode']})"
    if set(first) == set(second) and [name for name, _ in a] != [name for name, _ in b]:
        place = next(i for i, (x, y) in enumerate(zip(a, b)) if x[0] != y[0])
        yield f"{where}: order: entry {place} is {b[place][0]!r}, expected {a[place][0]!r}"


def compare(expected, actual, limit):
    """Every difference as a line."""
    yield from values("manifest", expected.manifest, actual.manifest)
    yield from values("config", expected.config, actual.config)
    for number, (a, b) in enumerate(zip(expected.layers(), actual.layers())):
        if a["digest"] == b["digest"]:
            continue
        lines = list(layer_lines(number, expected.entries(a), actual.entries(b)))
        yield from lines[:limit]
        if len(lines) > limit:
            yield f"layer {number}: {len(lines) - limit} more differences"
        if not lines:
            yield f"layer {number}: the same entries, written or compressed in another way"


def main():
    parser = argparse.ArgumentParser(description="Compare two images byte for byte.")
    parser.add_argument("expected")
    parser.add_argument("actual")
    parser.add_argument("--limit", type=int, default=20)
    args = parser.parse_args()
    try:
        lines = list(compare(Bytes(args.expected), Bytes(args.actual), args.limit))
    except (flatten.ImageError, OSError, KeyError, ValueError, tarfile.TarError) as error:
        print(f"image_diff.py: {error}", file=sys.stderr)
        return 2
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
