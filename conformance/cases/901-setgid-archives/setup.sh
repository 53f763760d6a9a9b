python3 - <<'END'
import io, tarfile
with tarfile.open("t.tar", "w") as tar:
    for name in ("i/j/f", "g"):
        entry = tarfile.TarInfo(name)
        entry.size, entry.uid, entry.gid = 2, 10, 11
        tar.addfile(entry, io.BytesIO(b"1\n"))
    entry = tarfile.TarInfo("e")
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, 10, 11
    tar.addfile(entry)
    entry = tarfile.TarInfo("e/k/h")
    tar.addfile(entry)
END
