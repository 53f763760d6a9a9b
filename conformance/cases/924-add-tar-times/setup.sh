python3 - <<'END'
import tarfile
with tarfile.open("t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    for name, time in (("a", -5), ("b", 99999999999), ("c", 9223372036), ("d", 9223372037), ("e", 0), ("f", 1.5), ("g", -0.5)):
        entry = tarfile.TarInfo(name)
        entry.mtime = time
        tar.addfile(entry)
    entry = tarfile.TarInfo("h")
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, -5
    tar.addfile(entry)
    entry = tarfile.TarInfo("l")
    entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, "a", 99999999999
    tar.addfile(entry)
END
