#!/usr/bin/env python3
"""Runs a command and writes the most memory that it (or one process below it) had resident: peak.py FILE COMMAND...

FILE gets the number in KiB (getrusage, ru_maxrss: the largest single process, which for a build is the builder itself as
long as its RUN steps are small). The exit status is the command's.
"""
import resource
import subprocess
import sys

status = subprocess.run(sys.argv[2:], check=False).returncode
with open(sys.argv[1], "w", encoding="ascii") as f:
    f.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}\n")
sys.exit(status if status >= 0 else 128 - status)
