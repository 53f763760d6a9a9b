import collections
import sys

import _tally
import words


def main():
    found = words.split(sys.stdin.read())
    (word, count), = collections.Counter(found).most_common(1)
    print(f"{word} {count}, native {_tally.count(found, word)}")
