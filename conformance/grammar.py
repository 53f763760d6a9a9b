"""Random Dockerfiles and contexts: `case(seed)` makes one, `write` turns it into a case's folder.

A case is data, so that `fuzz` can take it apart again:

    head        the lines before the first instruction: directives and comments
    blocks      the Dockerfile: one text per instruction, with its here-documents
    entries     what the context holds, in the order of making (see `Context`)
    ignore      the lines of .dockerignore
    build_args, secrets, mtime, http, contexts
                as in case.json
    crlf        whether the Dockerfile's lines end like those of Windows

Most cases shall build: an error hides all that comes after it. So the grammar remembers roughly what
is where (`Stage.paths`), and names things that are not there only now and then.
"""
import json
import os
import random
import shlex

BASES = ("busybox",) * 10 + ("special", "layered", "volumes", "noroot", "rich")
NAMES = ("a", "b", "c", "d", "e", "a.txt", "b.md", ".env", "x y", "é", "n-1", "[z]", "long.name.tar")
MODES = (0o644,) * 8 + (0o755, 0o600, 0o444, 0o4755, 0o2755, 0o1777, 0o000, 0o640)
DIR_MODES = (0o755,) * 6 + (0o700, 0o1777, 0o2775, 0o775, 0o555)
OWNERS = ((0, 0),) * 4 + ((1000, 1000), (12, 34), (1001, 0), (65534, 65534))
USERS = ("app", "app", "svc", "root", "nobody", "0", "1000", "1000:1000", "app:extra", "1000:extra", "svc:2000", "77",
         "77:88", "0:0", "root:other", "65534", "1000:0", ":extra", "app:",
         "x", "y", "app2", "root2", "50", "1000:gx", "app:gy", "z:1")
CHOWNS = ("app", "app:extra", "1000", "1000:2000", "svc:", "0:0", "12:34", "root", ":other", "65534:7", "nobody:nogroup")
CHMODS = ("600", "0644", "755", "4755", "1777", "2750", "0", "u=rwX,go=rX", "go-w", "a+x", "u+s", "=r", "ug+rw,o=")
VALUES = ("x", "", "a b", "a.b.c", "foo/bar/baz", "1", "é", "x=y", "*.txt", "8080", "/w", "two  blanks", "a-b_c", "'q'")
VARIABLES = ("A", "B", "C", "D_1", "lower")
TARGETS = ("/m", "/m/n", "/m/n/o", "/srv/m", "m", "m/n", "./m", "/home/app", "/opt/o", "/etc/m", "/m/", "/root/.c")


class Context:
    """The entries of a context. An entry is a dict with `kind` and `path`; the other keys follow from the kind:

    dir, file (text), symlink (target), hard (target), fifo, tar (how, members: entries again)
    and each may have mode, owner and mtime.
    """

    def __init__(self, r, where=""):
        self.r, self.where, self.entries, self.files, self.dirs = r, where, [], [], [""]

    def free(self):
        for _ in range(9):
            parent = self.r.choice(self.dirs)
            path = f"{parent}/{self.r.choice(NAMES)}".lstrip("/")
            if path.count("/") < 4 and path not in self.files and path not in self.dirs:
                return path
        return None

    def add(self, kind, path, **more):
        entry = {"kind": kind, "path": self.where + path, **more}
        if kind in ("dir", "file") and self.r.random() < .3:
            entry["mode"] = self.r.choice(DIR_MODES if kind == "dir" else MODES)
        if kind != "hard" and self.r.random() < .2:
            entry["owner"] = self.r.choice(OWNERS)
        entry["mtime"] = self.r.choice((self.r.randrange(1, 2000000000), 1500000000 + self.r.randrange(10**8)))
        self.entries.append(entry)
        (self.dirs if kind == "dir" else self.files).append(path)

    def grow(self, count):
        r = self.r
        for number in range(count):
            path = self.free()
            if path is None:
                continue
            kind = r.choices(("file", "dir", "symlink", "hard", "fifo"), (10, 5, 3, 2, .2))[0]
            regular = [e["path"][len(self.where):] for e in self.entries if e["kind"] == "file"]
            if kind == "hard" and not regular:
                kind = "file"
            if kind == "file":
                self.add(kind, path, text="" if r.random() < .1 else f"{path} {number}\n" * r.choice((1, 1, 1, 50)))
            elif kind == "symlink":
                known = self.files + self.dirs[1:] or ["nosuch"]
                target = r.choice(known)
                near = os.path.relpath(target, os.path.dirname(path) or ".")
                self.add(kind, path, target=r.choice((near, near, near, "/" + target, "nosuch", "../" * 5 + "etc/passwd", ".", path)))
            elif kind == "hard":
                self.add(kind, path, target=self.where + r.choice(regular))
            else:
                self.add(kind, path)

    def listing(self):
        """All paths; those of directories end with a slash."""
        links = {e["path"][len(self.where):] for e in self.entries if e["kind"] == "symlink"}
        return [f for f in self.files if f not in links or self.r.random() < .3] + [d + "/" for d in self.dirs[1:]]

    def archive(self):
        r = self.r
        how = r.choice(("", "gz", "bz2", "xz"))
        inner = Context(r)
        inner.grow(r.randrange(1, 8))
        members = inner.entries
        if r.random() < .4:  # without the entries of some directories
            members = [m for m in members if m["kind"] != "dir" or r.random() < .5]
        for member in members:
            if r.random() < .1:
                member["path"] = r.choice(("./", "/", "../", "q/../")) + member["path"]
        r.random() < .2 and r.shuffle(members)
        name = r.choice(("t.tar", "t.tgz", "arch")) if not how else r.choice((f"t.tar.{how}", "packed", "t.tgz"))
        if name not in self.files and name not in self.dirs:
            self.add("tar", name, how=how, members=members)
            return name
        return None


class Stage:
    """What is roughly known of a stage while it is written."""

    def __init__(self, number, name, shell, paths, variables):
        self.number, self.name, self.shell = number, name, shell
        self.paths, self.variables = list(paths), dict(variables)
        self.user = False
        self.triggers = []


class Maker:
    def __init__(self, seed):
        self.r = random.Random(f"dockerfile {seed}")
        self.blocks, self.stages, self.outputs = [], [], 0
        self.escape = "\\"
        self.http = self.other = False
        self.secrets, self.build_args = {}, {}

    def maybe(self, chance):
        return self.r.random() < chance

    def pick(self, *choices):
        return self.r.choice(choices)

    # -- words

    def variable(self):
        known = list(self.stage.variables)
        return self.r.choice(known) if known and self.maybe(.8) else self.r.choice(VARIABLES)

    def expansion(self, depth=0):
        name = self.variable()
        inner = self.expansion(depth + 1) if depth < 2 and self.maybe(.2) else self.pick("x", "", "a b", "y.z", "/w", "\\$A", "\"q\"")
        pattern = self.pick("a", "*", "?", "*.", "a*", "f*/", "*/", ".c", "b", "\\*", "x*y", "", "[a]")
        return self.r.choices((
            f"${name}", f"${{{name}}}", f"${{{name}:-{inner}}}", f"${{{name}-{inner}}}", f"${{{name}:+{inner}}}",
            f"${{{name}+{inner}}}", f"${{{name}#{pattern}}}", f"${{{name}##{pattern}}}", f"${{{name}%{pattern}}}",
            f"${{{name}%%{pattern}}}", f"${{{name}/{pattern}/{inner.replace('/', '')}}}",
            f"${{{name}//{pattern}/{inner.replace('/', '')}}}", f"\\${name}", f"${{{name}:?needed}}" if name in self.stage.variables else "$"),
            (6, 6, 3, 2, 3, 2, 1, 1, 1, 1, 1, 1, 1, .3))[0]

    def word(self):
        """A word that is expanded, with its quotes."""
        text = "".join(self.pick(self.expansion(), self.pick("x", "y-1", "é", ".", "/", "@", ":")) for _ in range(self.r.randrange(1, 4)))
        style = self.r.random()
        if style < .45 and not set(text) & set(" '\"\\"):
            return text
        if style < .85:
            return '"' + text.replace('"', '\\"') + '"'
        return "'" + text.replace("'", "") + "'" if style < .92 else text.replace(" ", "\\ ")

    def assignment(self, name=None):
        name = name or self.r.choice(VARIABLES)
        if self.maybe(.5):
            value = self.r.choice(VALUES)
            self.stage.variables[name] = value
            return f"{name}=" + (value if value and not set(value) & set(" '\"") else json.dumps(value, ensure_ascii=False))
        self.stage.variables[name] = None
        return f"{name}={self.word()}"

    def directory(self):
        """The absolute path of a directory in the stage, there or not."""
        known = [p[:-1] for p in self.stage.paths if p.endswith("/")]
        if known and self.maybe(.5):
            return self.r.choice(known)
        return self.pick("/w", "/w/x", "/d", "/d/e/f", "/srv", "/tmp/t", "/home/app/n", "/opt/o", "/etc/n")

    def path(self):
        """The absolute path of a file or a directory in the stage."""
        if self.stage.paths and self.maybe(.6):
            return self.r.choice(self.stage.paths).rstrip("/")
        return self.directory()

    def destination(self, several):
        path = self.directory() if self.maybe(.8) else self.pick("x", "x/y", ".", "./", "n/../k", "../up", "$A/z", "/", "/l/../k")
        known = [k for k, v in self.stage.variables.items() if v == "/w"]
        if known and self.maybe(.2):
            path = f"${{{self.r.choice(known)}}}/v"
        if several:
            self.note(path, True)
            return path.rstrip("/") + "/"
        if self.maybe(.6):  # a new file's name
            path = path.rstrip("/") + self.pick("/f", "/a", "/g")
        elif self.maybe(.15):
            path = self.path()
        self.note(path, False)
        return path

    def note(self, path, directory):
        """Remember what is in the stage; directories end with a slash."""
        if not set(path) & set("$.\"'"):
            self.stage.paths.append("/" + path.strip("/") + ("/" if directory else ""))

    # -- sources

    def source(self, files):
        """A source of COPY out of a list of paths, as a name, a pattern or more."""
        r = self.r
        if not files or self.maybe(.5 if self.ignore and files is self.files else .12):
            return self.pick(".", "./", "*", "/", "a*", "?", "**", "[a-c]", "d*/", "*/a", "*/*", ".e*", "nosuch*")
        path = r.choice(files)
        folder, path = path.endswith("/"), path.rstrip("/") or "/"
        if self.maybe(.2):
            head, _, tail = path.rpartition("/")
            tail = self.pick("*", tail[:1] + "*", "?", f"[{tail[:1]}x]*" if tail[:1].isalpha() else "*", "*" + tail[-1:])
            path = f"{head}/{tail}" if head else tail
        elif self.maybe(.15):
            path = os.path.dirname(path) or "."
        path = path.replace("[z]", "[[]z]")
        if folder or self.maybe(.03):
            path = self.pick(path, path, path + "/", path + "/.", path + "/*")
        return self.pick(path, path, path, path, "./" + path, "/" + path.lstrip("/"), "../" + path.lstrip("/"))

    def words(self, words):
        """Sources and destination, in JSON where a word has a blank."""
        if any(" " in w for w in words) or self.maybe(.1):
            return json.dumps(words, ensure_ascii=False)
        return " ".join(words)

    def flags(self, *flags):
        given = [flag() for chance, flag in flags if self.maybe(chance)]
        self.maybe(.3) and self.r.shuffle(given)
        return "".join(f + " " for f in given)

    # -- instructions

    def copy(self, name="COPY"):
        r, files, origin = self.r, self.files, ""
        if name == "COPY" and self.maybe(.35):
            earlier = [s for s in self.stages[:-1]]
            kind = self.pick("stage", "stage", "image", "other") if earlier else self.pick("image", "other")
            if kind == "stage":
                stage = r.choice(earlier)
                origin = f"--from={self.pick(stage.name, str(stage.number)) if stage.name else stage.number} "
                files = stage.paths
            elif kind == "image":
                image, files = self.pick(("busybox", ["/etc/passwd", "/home/app/", "/home/", "/bin/cat"]),
                                         ("special", ["/sp/", "/xa/", "/sp/one", "/var/run", "/sp/sled"]),
                                         ("layered", ["/keep/", "/opaque/", "/link-to-dir/"]))
                origin = f"--from={image} "
            else:
                self.other, origin, files = True, "--from=other ", self.other_files
        parents = self.maybe(.1) and name == "COPY"
        flags = self.flags(
            (.2, lambda: "--chown=" + self.pick(*CHOWNS)), (.2, lambda: "--chmod=" + self.pick(*CHMODS)),
            (.12, lambda: self.pick("--link", "--link", "--link=true", "--link=false")),
            (.15, lambda: "--exclude=" + self.pattern().replace("é", "?")), (.05, lambda: "--exclude=" + self.pattern().replace("é", "?")))
        count = r.choices((1, 2, 3), (6, 2, 1))[0]
        sources = [self.source(files) for _ in range(count)]
        if parents:
            flags += "--parents "
            sources = [s.replace("/", "/./", 1) if self.maybe(.3) else s for s in sources]
        if name == "ADD":
            if self.maybe(.1):
                flags += self.pick("--unpack ", "--unpack=false ", "--unpack=true ")
            if self.archives and self.maybe(.6):
                sources[-1] = r.choice(self.archives)
            elif self.maybe(.05):
                self.http, sources[-1] = True, self.pick("$HTTP/f", "$HTTP/t.tar.gz", "${HTTP}/d/f?x=1")
                return f"ARG HTTP\nADD {flags}{self.words([*sources, self.destination(True)])}"
        if not origin and self.maybe(.15):
            return self.heredoc_copy(name, flags)
        several = count > 1 or parents or not any(s.lstrip("./") == f.lstrip("/") for s in sources for f in files)
        return f"{name} {origin}{flags}{self.words([*sources, self.destination(several and self.maybe(.97))])}"

    def heredoc_copy(self, name, flags):
        flags = " ".join(f for f in flags.split() if not f.startswith("--parents")) + " "
        names = self.r.sample(("EOF", "a.conf", "b", "f.sh", "é", "/abs", "x-y"), self.r.choices((1, 2), (4, 1))[0])
        heads, bodies = [], []
        for n in names:
            dash, quote = self.pick("", "", "-"), self.pick("", "", "'", '"')
            heads.append(f"<<{dash}{quote}{n}{quote}")
            body = [self.pick(f"value $A {self.expansion()}", "\tindented ${B:-no}", "plain", "", "it's \"q\" \\n \\$A", "# no comment", "$(x) `y`")
                    for _ in range(self.r.randrange(0, 4))]
            bodies += body + [("\t" if dash and self.maybe(.5) else "") + n]
        return f"{name} {flags.lstrip()}{' '.join(heads)} {self.destination(True)}\n" + "\n".join(bodies)

    def pattern(self):
        plain = [f for f in self.files if f and " " not in f] or ["a"]
        path = self.r.choice(plain).replace("[z]", "*z*").rstrip("/")
        top = path.split("/")[0]
        return self.pick(path, top, f"{top}/*", "*.txt", "**/a", "**/*.md", f"!{path}", "*", "a", f"/{path}", "**/b*", f"{top}/**", "d/", "?")

    def run(self):
        if not self.stage.shell:
            return self.copy()
        mounts, seen = [], []
        for _ in range(self.r.choices((0, 1, 2, 3), (6, 3, 1.5, .7))[0]):
            text, target = self.mount()
            mounts.append(text)
            target and seen.append(target)
        other = self.flags((.03, lambda: "--network=" + self.pick("none", "default")), (.02, lambda: "--security=sandbox"))
        flags = "".join(m + " " for m in mounts) + other
        self.outputs += 1
        output = f"/tmp/o{self.outputs}"
        commands = [self.command() for _ in range(self.r.choices((1, 2, 3, 4), (3, 3, 2, 1))[0])]
        for target in seen:
            commands.insert(self.r.randrange(len(commands) + 1), self.look(target))
            if self.maybe(.25):
                commands.append(f"echo z >{target}/new")
        form = self.r.random()
        if form < .08:
            return f"RUN {flags}" + json.dumps(["/bin/sh", "-c", f"{{ {'; '.join(commands)}; }} >{output} 2>&1"], ensure_ascii=False)
        if form < .25:
            head = self.pick("<<EOF", "<<'EOF'", "<<-EOF", '<<"EOF"')
            first = ["#!/bin/sh -e"] if self.maybe(.15) else ["set +e"] if self.maybe(.5) else []
            return f"RUN {flags}{head}\n" + "\n".join([*first, f"exec >{output} 2>&1", *commands, "true", "EOF"])
        if form < .3:
            return f"RUN {flags}cat <<a - <<b >{output}\none $A ${{B:-x}}\na\ntwo \\$A\nb"
        end = self.r.choices(("; true", ""), (19, 1))[0]
        return f"RUN {flags}{{ {'; '.join(commands)}; }} >{output} 2>&1{end}"

    def look(self, target):
        target = target.rstrip("/")
        # A fifo would be waited for without an end.
        contents = f'for f in {target}/*; do test -p "$f" || cat "$f"; done 2>/dev/null'
        return self.pick(f"find {target} 2>/dev/null | sort", f"find {target} 2>/dev/null | sort | xargs -d '\\n' stat -c '%n %a %u %g %F %h'",
                         f"ls -A {target}", f"stat -c '%a %u %g' {target}", contents, f"cp -a {target} /tmp/c{self.outputs} 2>/dev/null")

    def mount(self):
        kind = self.r.choices(("bind", "cache", "tmpfs", "secret", "ssh"), (8, 4, 2, 2, .5))[0]
        target = self.pick(*TARGETS)
        if self.maybe(.1):
            target = self.directory()
        elif self.maybe(.04):
            target = self.pick("$A", "${B:-/m/v}", "${C}/m", "", ".", "/m/../k", "/lnk/m")
        options = [f"type={kind}"] if kind != "bind" or self.maybe(.7) else []
        if not (kind in ("secret", "ssh") and self.maybe(.5)):
            options.append(self.pick("target=", "dst=", "destination=", "target=") + target)
        else:
            target = None
        if kind == "bind":
            self.bind(options, target)
        elif kind == "cache":
            self.maybe(.6) and options.append(self.pick("id=c1", "id=c2"))
            self.maybe(.2) and options.append("sharing=" + self.pick("shared", "locked", "private"))
            self.maybe(.2) and options.append("mode=" + self.pick("0700", "755", "0770"))
            self.maybe(.2) and options.append(self.pick("uid=1000", "gid=2000", "uid=12"))
            self.maybe(.1) and options.append(self.pick("ro", "readonly=true", "rw=false"))
            self.maybe(.1) and options.extend(("from=special", "source=/sp"))
        elif kind == "tmpfs":
            self.maybe(.2) and options.append("size=" + self.pick("1m", "64k", "2M"))
        elif kind == "secret":
            name = self.pick("s1", "s2", "none")
            options.append("id=" + name)
            if name != "none":
                self.secrets[name] = f"secret {name}\n"
            self.maybe(.2) and options.append("mode=" + self.pick("0444", "0600"))
            self.maybe(.2) and options.append(self.pick("uid=1000", "gid=2000"))
            self.maybe(.15) and options.append("env=" + self.pick("TOKEN", "A"))
            if not target:
                target = f"/run/secrets/{name}"
        else:
            target = None
        if not self.maybe(.9):
            self.r.shuffle(options[1:])
        text = ",".join(f'"{o}"' if " " in o or self.maybe(.03) else o for o in options)
        if " " in text or "'" in text:
            text = "'" + text.replace("'", "") + "'"
        return f"--mount={text}", target

    def bind(self, options, target):
        r, earlier = self.r, self.stages[:-1]
        files = self.files
        if self.maybe(.4):
            if earlier and self.maybe(.6):
                stage = r.choice(earlier)
                options.append(f"from={stage.name or stage.number}")
                files = stage.paths
            elif self.maybe(.3):
                self.other, files = True, self.other_files
                options.append("from=other")
            else:
                options.append("from=special")
                files = ["/sp/", "/xa/", "/sp/one", "/var/run/", "/"]
        if files and self.maybe(.7):
            source = r.choice(files)
            folder, source = source.endswith("/"), source.rstrip("/")
            if folder:
                source = self.pick(source, source, source, "", "/", ".", "./" + source, source + "/", os.path.dirname(source))
            elif target not in ("/m/n/o", "/srv/m", "/etc/m"):
                options[-1] = "target=/m/file"
            options.append(self.pick("source=", "src=", "source=") + source)
        if self.maybe(.25):
            options.append(self.pick("rw", "rw=true", "readwrite", "ro=false", "ro"))

    def command(self):
        # What walks directories says its errors in the file system's order, which is not the builder's affair.
        p, q = self.path(), self.path()
        made = self.r.choice(NAMES).replace("[z]", "z").replace("x y", "xy")
        f = f"{p}/{made}"
        text = self.r.choices((
            f"mkdir -p {p} && echo {self.outputs} >{f}", f"mkdir -p {f}", f"rm -rf {p} 2>/dev/null", f"mv {p} {q} 2>/dev/null", f"cp -a {p} {q} 2>/dev/null",
            f"chmod {self.pick('700', '2755', '1777', 'u+s', 'go-rx', '4711')} {p}", f"chown {self.pick('1000:1000', 'app', '12:34', ':extra', '65534')} {p}",
            f"ln -s {self.pick(q, 'nosuch', '..', made)} {f}", f"ln {p} {q}.l", f"touch -d @{1400000000 + self.outputs} {p}", f"echo more >>{p}",
            "id", "id -G", "pwd", "env | grep -vE '^(SHLVL|OTEL_|TRACEPARENT)' | sort", "umask", "echo $HOME:$USER:$A", f"stat -c '%n %a %u %g %F' {p}", f"ls -A {p}", f"find {p} 2>/dev/null | sort",
            f"cat {p}", "ls -A / /dev/shm /proc/self/fd | head -n 40 | grep -v '^[0-9]'", f"mkfifo {f}", f"mkdir {p}", f"rm {p}", f"rmdir {p}",
            f"rm -rf {p} 2>/dev/null && mkdir -p {p}", f"touch {p}", f"printf '%s' '{self.stage.number} {self.outputs}' >{p}", f"cp -a {p} {p}.c 2>/dev/null && rm -rf {p} 2>/dev/null && mv {p}.c {p}",
            f"ln -sf {q} {p}", "grep -c . /etc/passwd /etc/group", self.passwd(), "id app; id svc", "cat /proc/self/status | grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp):' | head -n 3",
            "hostname | wc -l", "test -t 0 || echo no tty", "readlink -f .", "false || echo went on", "(exit 3); echo $?", "trap 'echo bye' EXIT", "sleep 0 & wait; echo waited",
        ), (6, 4, 3, 3, 3, 3, 3, 3, 1, 2, 3, 1.5, 1, 2, 1.5, 1, 2, 2, 1, 2, 1, .2, .7, 2, 1, 1, 2, 2, 2, 1, 1.5, .5, 2.5, .6, .7, .2, .3, .5, .3, .3, .2, .3))[0]
        if text.startswith("mkdir") or text.startswith("ln -s ") and self.maybe(.5):
            self.note(p if text.startswith("mkdir") else f, True)
        elif text.startswith(("touch", "printf")):
            self.note(p, False)
        return text

    def passwd(self):
        line = self.pick("x:x:50:60:::", "y:x:51:61::/srv:/bin/sh", "app2:x:1000:77::/h2:/bin/sh", "#z:x:52:52::/:", "bad", "w:x:53:nan::/:", "root2:x:0:0::/r2:/bin/sh")
        group = self.pick("gx:x:88:app", "#g:x:89:app", "gy:x:90:app,svc", "gz:x: 91:app", "extra:x:92:svc", "g:x:93:x")
        return self.pick(f"echo '{line}' >>/etc/passwd", f"echo '{group}' >>/etc/group", "rm -f /etc/group")

    def workdir(self):
        where = self.pick(self.directory(), "x", "x/y", "..", ".", "/w//x/", "$A", "/w/${B:-b}", '"/q r"', "/", self.directory())
        if where.startswith("/") and " " not in where:
            self.note(where, True)
        return f"WORKDIR {where}"

    def expose(self):
        return "EXPOSE " + " ".join(self.r.sample(("80", "80/udp", "7000-7002", "53/UDP", "443/tcp", "${A:-81}", "9000-9001/udp", "8080:80", "127.0.0.1::22"), self.r.randrange(1, 4)))

    def healthcheck(self):
        flags = self.flags((.4, lambda: "--interval=" + self.pick("1s", "1m30s", "500ms", "1h")), (.3, lambda: "--timeout=2s"),
                           (.2, lambda: "--retries=" + self.pick("0", "3")), (.2, lambda: "--start-period=5s"), (.1, lambda: "--start-interval=1s"))
        return self.pick("HEALTHCHECK NONE", f"HEALTHCHECK {flags}CMD curl -f $A || exit 1", f'HEALTHCHECK {flags}CMD ["x", "-y"]', f"HEALTHCHECK {flags}cmd true")

    def command_form(self):
        name = self.pick("CMD", "ENTRYPOINT")
        return f"{name} " + self.pick('["a", "b c"]', "echo $A \"x\"  y", "[]", '["é", "\\u0041", "\\\\"]', "['no', 'json']", "exec  two", '[ "a" , "b" ] ', '["a", 1]')

    def label(self):
        return "LABEL " + " ".join(self.pick(f"l{self.r.randrange(4)}={self.word()}", f'"k.{self.r.randrange(3)}"="v  {self.outputs}"', f"n=\"a \\\"b\\\" $A\"")
                                   for _ in range(self.r.randrange(1, 4)))

    def environment(self):
        if self.maybe(.1):
            self.stage.variables[name := self.r.choice(VARIABLES)] = None
            return f"ENV {name} {self.pick('legacy value', 'a  b', '$A and ${B:-b}', 'x=y z')}"
        return "ENV " + " ".join(self.assignment() for _ in range(self.r.choices((1, 2, 3), (4, 2, 1))[0]))

    def argument(self):
        name = self.pick(*VARIABLES, "TARGETARCH", "G1", "HTTP_PROXY", "TARGETPLATFORM", "NEW")
        if self.maybe(.2):
            self.build_args[name if name.isalnum() and not name.startswith("TARGET") else "A"] = self.r.choice(VALUES)
        self.stage.variables.setdefault(name, None)
        return f"ARG {name}" if self.maybe(.35) else "ARG " + self.assignment(name)

    def instruction(self):
        make = self.r.choices((
            self.copy, lambda: self.copy("ADD"), self.run, self.workdir, lambda: "USER " + self.pick(*USERS), self.environment, self.argument,
            self.label, self.expose, self.healthcheck, self.command_form,
            lambda: self.pick('VOLUME /data', 'VOLUME ["/v 1", "$A/v"]', "VOLUME $B/x /y", "VOLUME /w/x"),
            lambda: "STOPSIGNAL " + self.pick("SIGTERM", "9", "kill", "SIGRTMIN+3", "${A:-TERM}"),
            lambda: self.pick('SHELL ["/bin/sh", "-ec"]', 'SHELL ["/bin/busybox", "sh", "-c"]', 'SHELL ["/bin/sh", "-c"]'),
            lambda: self.pick("MAINTAINER someone <a@b>", "MAINTAINER $A"), self.onbuild),
            (10, 3, 12, 3, 2, 4, 3, 1.5, .7, .7, 1.2, .7, .4, .5, .2, .5))[0]
        return make()

    def onbuild(self):
        inner = self.pick(lambda: "ENV O=1 $A=x" if False else "ENV O=1", self.workdir, lambda: "USER app", self.label, lambda: "RUN echo triggered >>/tmp/trigger",
                          self.argument, lambda: "COPY " + self.words([self.source(self.files), "/trig/"]), lambda: "CMD from trigger")()
        return "ONBUILD " + inner if "\n" not in inner else inner

    def decorate(self, text):
        """The same instruction in other clothes: letter case, continuation lines, comments, blanks."""
        if "<<" in text or text.count("\n"):
            return text
        word, _, rest = text.partition(" ")
        if self.maybe(.1):
            word = self.pick(word.lower(), word.capitalize())
        if self.maybe(.05):
            word = self.pick("  ", "\t") + word
        places = [i for i, c in enumerate(rest) if c == " " and rest[i - 1:i] != "\\"]
        if places and self.maybe(.15):
            at = self.r.choice(places)
            between = self.pick("", "", "# comment\n", "\n", "  # comment \\\n", "# a\n\n#b\n")
            rest = rest[:at] + f" {self.escape}{self.pick('', '', ' ', chr(9))}\n{between}" + self.pick("  ", "", "\t") + rest[at + 1:]
        return word + self.pick(" ", " ", " ", "  ", "\t") + rest + self.pick("", "", "", " ", "\t")

    def begin(self, number, last):
        r = self.r
        earlier = self.stages[:]
        name = None
        if not last and self.maybe(.8) or last and self.maybe(.2):
            name = f"s{number}"
        inherited = [s for s in earlier if s.name]
        if inherited and self.maybe(.4):
            parent = r.choice(inherited)
            base, shell, paths, variables = parent.name, parent.shell, parent.paths, parent.variables
            self.stages.append(Stage(number, name, shell, paths, variables))
        elif self.maybe(.1):
            base = "scratch"
            self.stages.append(Stage(number, name, False, [], {}))
        else:
            base = r.choice(BASES)
            paths = ["/etc/passwd", "/home/app/", "/home/"] + {"special": ["/sp/", "/sp/two", "/var/run/", "/sp/setgid-dir/"],
                     "layered": ["/keep/", "/opaque/", "/link-to-dir/"], "volumes": ["/data/"]}.get(base, [])
            self.stages.append(Stage(number, name, True, paths, {"FROM_BASE": "yes"} if base == "rich" else {}))
            base = self.pick(base, base, base, base + ":latest", "${BASE:-" + base + "}", "docker.io/library/" + base)
            if base.startswith("docker.io") or base.endswith(":latest"):
                base = base.removeprefix("docker.io/library/").removesuffix(":latest")
        self.stage = self.stages[-1]
        as_word = self.pick("AS", "as", "As")
        return f"FROM {self.pick('', '', '', '', '--platform=$BUILDPLATFORM ', '--platform=linux/amd64 ')}{base}" + (f" {as_word} {name}" if name else "")

    def make(self):
        r = self.r
        context = Context(r)
        context.grow(r.randrange(2, 14))
        self.archives = [a for a in (context.archive() for _ in range(r.choices((0, 1, 2), (5, 3, 1))[0])) if a]
        other = Context(r, "@other/")
        other.grow(r.randrange(1, 5))
        self.files = context.listing()
        self.other_files = other.listing()
        self.ignore = ignore = []
        if self.maybe(.35):
            for _ in range(r.randrange(1, 5)):
                line = self.pattern()
                ignore.append("!" + line.lstrip("!") if self.maybe(.3) else line)
            ignore[:] = [self.pick(line, line, line, line + "  ", line + "/") for line in ignore]
            self.maybe(.1) and ignore.insert(0, "# comment")
        head = []
        if self.maybe(.1):
            self.escape = self.pick("`", "\\")
            head.append(f"# escape={self.escape}")
        self.maybe(.1) and head.insert(0, self.pick("# syntax=docker/dockerfile:1", "# Check=skip=all"))
        self.maybe(.1) and head.append("# a comment")
        count = r.choices((1, 2, 3, 4), (5, 4, 2, 1))[0]
        self.stage = Stage(-1, None, False, [], {})
        if self.maybe(.25):
            self.blocks.append("ARG " + self.assignment("G1"))
            self.maybe(.3) and self.blocks.append(self.pick("ARG BASE=busybox", "ARG BASE"))
        for number in range(count):
            self.blocks.append(self.begin(number, number == count - 1))
            for _ in range(r.randrange(1, 8)):
                text = self.instruction()
                if self.escape == "`":
                    text = text.replace("\\$", "`$").replace("\\ ", "` ") if not text.startswith("RUN") else text
                self.blocks.append(self.decorate(text))
            if self.maybe(.5) and self.stage.shell:
                self.blocks.append("USER 0:0")  # what follows can work again
        result = {"head": head, "blocks": self.blocks, "entries": context.entries, "ignore": ignore,
                  "build_args": self.build_args, "secrets": self.secrets, "mtime": self.maybe(.3), "crlf": self.maybe(.02)}
        if self.other:
            result["contexts"] = {"other": "dir:other"}
            result["entries"] = context.entries + other.entries
        if self.http:
            result["http"] = True
        return result


def case(seed):
    """The case of this seed, always the same."""
    return Maker(seed).make()


# --------------------------------------------------------------------------
# A case's folder


ARCHIVE = """\
import bz2, gzip, io, lzma, sys, tarfile
data = io.BytesIO()
with tarfile.open(fileobj=data, mode="w") as tar:
    def add(name, kind, mode, uid, gid, mtime, link="", text=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname = kind, mode, uid, gid, mtime, link
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))
"""
PACK = {"": "data.getvalue()", "gz": "gzip.compress(data.getvalue(), mtime=0)", "bz2": "bz2.compress(data.getvalue())",
        "xz": "lzma.compress(data.getvalue())"}
TYPES = {"file": "REGTYPE", "dir": "DIRTYPE", "symlink": "SYMTYPE", "hard": "LNKTYPE", "fifo": "FIFOTYPE"}


def archive(entry, place):
    lines = [f"python3 - {place} <<'END'", ARCHIVE.rstrip()]
    for m in entry["members"]:
        mode = m.get("mode", 0o755 if m["kind"] == "dir" else 0o777 if m["kind"] == "symlink" else 0o644)
        uid, gid = m.get("owner", (0, 0))
        lines.append(f"    add({m['path']!r}, tarfile.{TYPES[m['kind']]}, {mode:#o}, {uid}, {gid}, {m['mtime']}, "
                     f"{m.get('target', '')!r}, {m.get('text', '')!r})")
    lines += [f"open(sys.argv[1], 'wb').write({PACK[entry['how']]})", "END"]
    return lines


def setup(case, owners=True):
    """The lines of setup.sh. Directories get their modes and times last."""
    lines, last = [], []
    for entry in case["entries"]:
        path, kind = entry["path"], entry["kind"]
        place = shlex.quote(path) if not path.startswith("@") else '"$ROOT"/' + shlex.quote(path)
        parent = os.path.dirname(path)
        if parent:
            lines.append("mkdir -p " + (shlex.quote(parent) if not path.startswith("@") else '"$ROOT"/' + shlex.quote(parent)))
        if kind == "file":
            text = entry["text"]
            repeat = text.count("\n") if text.count("\n") > 1 else 0
            lines.append(f"yes {shlex.quote(text.split(chr(10))[0])} | head -n {repeat} >{place}" if repeat
                         else f"printf {shlex.quote(text.replace(chr(10), chr(92) + 'n'))} >{place}")
        elif kind == "tar":
            lines += archive(entry, place)
        else:
            target = entry.get("target", "")
            if kind == "hard" and target.startswith("@"):
                target = '"$ROOT"/' + shlex.quote(target)
            else:
                target = shlex.quote(target)
            lines.append({"dir": f"mkdir -p {place}", "symlink": f"ln -sn {target} {place}", "hard": f"ln -P {target} {place}",
                          "fifo": f"mkfifo {place}"}[kind])
        if kind == "hard":
            continue
        if "owner" in entry and owners:
            lines.append(f"chown -h {entry['owner'][0]}:{entry['owner'][1]} {place}")
        if "mode" in entry:
            (last if kind == "dir" else lines).append(f"chmod {entry['mode']:04o} {place}")
        if case["mtime"]:
            (last if kind == "dir" else lines).append(f"touch -hd @{entry['mtime']} {place}")
    if case.get("http"):
        lines += ['mkdir "$HTTP_DIR/d"', 'echo served >"$HTTP_DIR/f"', 'echo deeper >"$HTTP_DIR/d/f"',
                  'tar --sort=name --mtime=@1500000000 --owner=5 --group=6 -C "$HTTP_DIR" -cf - f | gzip -n >"$HTTP_DIR/t.tar.gz"',
                  'touch -d @1500000001 "$HTTP_DIR"/f "$HTTP_DIR"/d/f "$HTTP_DIR"/t.tar.gz']
    if "contexts" in case:
        lines.insert(0, 'mkdir -p "$ROOT/@other"')
    if case["mtime"]:  # also of what the runner made
        last.append("touch -d @1577836800 .")
        if "contexts" in case:
            last.append('touch -d @1577836800 "$ROOT/@other"')
    # An order that keeps one from the other: the deepest directory first.
    last.sort(key=lambda line: (line.startswith("touch"), -line.count("/")))
    out = []
    for line in lines + last:
        if not (line.startswith("mkdir -p") and line in out):
            out.append(line)
    return out


def dockerfile(case):
    text = "\n".join(case["head"] + case["blocks"]) + "\n"
    return text.replace("\n", "\r\n") if case["crlf"] else text


def write(case, directory, title, owners=True):
    """Write the case's folder as conformance/README.md describes it."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "Dockerfile"), "w", encoding="utf-8", newline="") as f:
        f.write(dockerfile(case))
    lines = setup(case, owners)
    if case["ignore"]:  # first, since it is new in the context's directory, whose time comes last
        lines = ["cat >.dockerignore <<'END'", *case["ignore"], "END"] + lines
    if lines:
        with open(os.path.join(directory, "setup.sh"), "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
    document = {"title": title, "why": "a random Dockerfile showed it", "tags": ["fuzz"], "expected": "image"}
    for key in ("build_args", "secrets", "contexts", "http", "mtime"):
        if case.get(key):
            document[key] = case[key]
    with open(os.path.join(directory, "case.json"), "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1, ensure_ascii=False)
        f.write("\n")
    return document
