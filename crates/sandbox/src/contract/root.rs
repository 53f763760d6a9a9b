//! What root of a container takes for granted, and what a user may not.

use rootfs::FileKind;
use rustix::thread::CapabilitySet;

use super::Check;
use super::attack;
use super::suite::{Place, Suite, same, shell, text};

pub const CHECKS: &[(&str, Check)] = &[
    ("root reads and writes where the mode says nobody may", past_modes),
    ("owners given by number come back from an archive", archives),
    ("hard links, renames and the way back to `/`", names_of_files),
    ("new names for the files of others", names_for_files_of_others),
    ("a change through one of several names leaves the directory's time", time_beside_names),
    ("file capabilities", capabilities),
    ("sockets with names in the rootfs", sockets),
    ("another user's rights", rights_of_users),
    ("becoming another user", su),
    ("set-user-ID programs", set_user_id),
    ("times that a step sets", times),
    ("names with slashes, dots and links at their end", slashes),
    ("a program that runs is not written to, and one that is written to does not run", busy),
];

fn past_modes(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir -p /p/q; echo a > /p/q/f; chmod 400 /p/q/f; chown 33:33 /p/q/f; cat /p/q/f; echo b > /p/q/f
        chmod 000 /p/q/f /p/q /p; touch /p/q/new; cat /p/q/f; ls /p/q";
    same("output", place.script(script, &[])?.as_str(), "a\nb\nf\nnew\n")?;
    let wanted = [("p", (0, 0, 0)), ("p/q", (0, 0, 0)), ("p/q/f", (0, 33, 33)), ("p/q/new", (0o644, 0, 0))];
    for (path, wanted) in wanted {
        let found = place.stat(path)?;
        same(path, (found.mode, found.uid, found.gid), wanted)?;
    }
    same(
        "the next step",
        place.script("cat /p/q/f; rm -r /p; ls -d /p 2> /dev/null || echo gone", &[])?.as_str(),
        "b\ngone\n",
    )
}

fn archives(suite: &Suite<'_>) -> Result<(), String> {
    let script = "mkdir -p /t/d; cd /t; echo x > d/f; ln -s f d/l; chown 123:456 d d/f; chmod 4711 d/f
        tar cf t.tar d; rm -r d; tar xpf t.tar; stat -c '%u:%g %a' d d/f;
        readlink d/l";
    same("output", suite.place()?.script(script, &[])?.as_str(), "123:456 755\n123:456 4711\nf\n")
}

fn names_of_files(suite: &Suite<'_>) -> Result<(), String> {
    let script = "mkdir -p /usr/share/doc /srv; cd /usr/share/doc; pwd; /bin/pwd; readlink /proc/self/cwd
        echo x > /srv/one; ln /srv/one /srv/two; stat -c %h /srv/one; mv /srv/two /usr/share/three; ls /srv
        stat -c %h /usr/share/three; ln -s /usr/share /link; realpath /link/three /bin/sh; cd /link; cd ..; pwd -P
        cd /../..; pwd; ls -di / /.. | cut -c1-20 | tr -s ' ' | cut -d' ' -f1 | sort -u | wc -l";
    let wanted = "/usr/share/doc\n/usr/share/doc\n/usr/share/doc\n2\none\n2\n/usr/share/three\n/bin/busybox\n/\n/\n";
    let got = suite.place()?.script(script, &[])?;
    // The last line counts the inodes of `/` and `/..`, however `ls` pads them.
    same("output", got.strip_suffix("1\n"), Some(wanted))
}

/// Issue 8, kind: which error comes first. Whether a user may link at all is asked before the rights on the directory are.
fn names_for_files_of_others(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = "mkdir /own /dir; touch /own/f /own/exists /closed /open /sets; mkfifo /pipe; chmod 666 /open /pipe; chmod 4666 /sets
        chown -R 1000:1000 /own";
    place.script(before, &[])?;
    let is_protected =
        std::fs::read("/proc/sys/fs/protected_hardlinks").map_or(true, |setting| !setting.starts_with(b"0"));
    let (linked, refused, in_order) =
        if is_protected { ("EPERM", "EPERM", "EPERM") } else { ("linked", "EPERM", "EACCES") };
    let tries = [
        ("/own/f /own/g", "linked"),
        ("/own/f /g", "EACCES"),
        ("/open /own/open", "linked"),
        ("/open /g", "EACCES"),
        ("/closed /own/closed", linked),
        ("/closed /g", in_order),
        ("/closed /own/exists", "EEXIST"),
        ("/sets /own/sets", linked),
        ("/pipe /own/pipe", linked),
        ("/dir /own/dir", refused),
        ("/dir /g", in_order),
        ("/own /own/own", "EPERM"),
        ("/own /g", "EACCES"),
    ];
    let (mut script, mut wanted) = (String::new(), String::new());
    for (names, outcome) in tries {
        script.push_str(&format!("echo \"{names} $(try {names})\"\n"));
        wanted.push_str(&format!("{names} {outcome}\n"));
    }
    let try_one =
        "try() { case \"$(ln $1 $2 2>&1)\" in '') echo linked;; *not\\ permitted) echo EPERM;; *denied) echo EACCES;;
        *exists) echo EEXIST;; *) ln $1 $2 2>&1;; esac; }\n";
    same("a user", user(&place, &[], &(try_one.to_owned() + &script))?, wanted)?;
    same(
        "root",
        place.script("ln /pipe /own/new; ln /own/f /new; stat -c %h /pipe /own/f", &[]).map(|text| text.len()),
        Ok(4),
    )
}

/// Issue 8, kind: times. A copy-up on an overlay leaves those of the directory.
fn time_beside_names(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let names = "mkdir /d; for n in a b c d e; do echo $n > /d/$n; ln /d/$n /d/$n.2; done; touch -d @1000000000 /d";
    place.script(names, &[])?;
    let changes = "cd /d; echo x >> a; chmod 600 b; touch c; chown 1:1 d; : > e; stat -c %Y /d";
    same("in the step", place.script(changes, &[])?.as_str(), "1000000000\n")?;
    same("afterwards", place.script("stat -c %Y /d", &[])?.as_str(), "1000000000\n")
}

fn capabilities(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    // With the metadata log a step in place does not see what is only written down.
    let readable = place.attack("capability", &[])?.reached() == ["read back"];
    same("read back", readable || suite.sandbox.name() == "inplace", true)?;
    let attributes = place.tree.xattrs("tmp/capable".as_ref()).map_err(text)?;
    let found = attributes.iter().find(|(name, _)| name == "security.capability");
    // Version and sets; a root that is not the machine's adds its number.
    same("in the layer", found.map(|(_, value)| value.get(4..8)), Some(Some(&[0, 4, 0, 0][..])))
}

fn sockets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    place.attack("socket", &[])?;
    same("kind", place.stat("run/a/rather/long/way/to/a/socket/in/the/rootfs/s")?.kind, FileKind::Socket)
}

fn user(place: &Place<'_>, groups: &[u32], script: &str) -> Result<String, String> {
    let mut process = shell(script);
    (process.uid, process.gid, process.groups) = (1000, 1000, groups.to_vec());
    place.success(&process, &[])
}

fn rights_of_users(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir /own /closed /group; chown 1000:1000 /own; chmod 700 /closed; chown 0:50 /group; chmod 2770 /group
        echo secret > /closed/f; echo secret > /s; chmod 600 /s; touch /tmp/root; echo x > /own/given; chown 1000 /own/given
        echo g > /g; chown 0:50 /g; chmod 640 /g";
    place.script(script, &[])?;
    let tries = "id -u; echo x > /own/f && echo wrote
        for f in /s /closed/f /g; do cat $f 2> /dev/null || echo no $f; done
        for c in 'rm /tmp/root' 'touch /bin/x' 'chmod 777 /s' 'chown 1000 /s' 'chown 0 /own/f' 'mv /s /own' 'ls /closed' \
                 'mknod /own/n c 1 3' 'ls /group'; do
            $c > /dev/null 2>&1 && echo $c || echo no $c
        done; stat -c '%u:%g %a' /own/f";
    let refused = "no rm /tmp/root\nno touch /bin/x\nno chmod 777 /s\nno chown 1000 /s\nno chown 0 /own/f\nno mv /s /own\n\
                   no ls /closed\nno mknod /own/n c 1 3\n";
    let wanted = format!("1000\nwrote\nno /s\nno /closed/f\nno /g\n{refused}no ls /group\n1000:1000 644\n");
    same("without a group", user(&place, &[], tries)?, wanted)?;
    let grouped = "cat /g; echo x > /group/f && stat -c %u:%g /group/f";
    // A set-group-ID bit that is only written down does not make what is in the directory the group's.
    let sets_bits = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FSETID));
    let group = if sets_bits || suite.sandbox.name() != "inplace" { 50 } else { 1000 };
    same("in the group", user(&place, &[50], grouped)?, format!("g\n1000:{group}\n"))?;
    let made = place.stat("own/f")?;
    same("owner", (made.uid, made.gid, made.mode), (1000, 1000, 0o644))
}

fn slashes(suite: &Suite<'_>) -> Result<(), String> {
    let outside = suite.fresh_directory("slashes")?;
    let wanted = attack::natively("slashes", &[&outside.to_string_lossy()])?;
    suite.place_for_attacks()?.attack("slashes", &["/tmp"])?.same_as(&wanted)
}

fn busy(suite: &Suite<'_>) -> Result<(), String> {
    let tries = "t() { ( $1 ) 2> /dev/null && echo wrote || echo refused; }
        shell() { echo x > /bin/busybox; }; more() { : >> /bin/busybox; }; onto() { cat /etc/x > /bin/busybox; }
        copy() { cp /etc/x /bin/busybox; }; cut() { truncate -s 1 /bin/busybox; }; open() { exec 3<> /bin/busybox; }
        mkdir -p /etc; echo x > /etc/x; for a in shell more onto copy cut open; do t $a; done
        again() { echo x > /tmp/busybox-p; }; cp /bin/busybox /tmp/busybox-p; /tmp/busybox-p sleep 60 & p=$!
        until [ \"$(readlink /proc/$p/exe)\" = /tmp/busybox-p ]; do :; done
        t again; mv /tmp/busybox-p /tmp/busybox-q; ln /tmp/busybox-q /tmp/busybox-p; t again; kill $p; wait $p 2> /dev/null; t again
        cp /bin/busybox /tmp/busybox-own; exec 3>> /tmp/busybox-own; /tmp/busybox-own true 2> /dev/null || echo $?
        exec 3>&-; /tmp/busybox-own true && echo runs
        printf '#!/bin/sh\necho script' > /tmp/s; chmod 755 /tmp/s; exec 3>> /tmp/s; /tmp/s 2> /dev/null || echo $?
        exec 3>&-; /tmp/s; rm /tmp/busybox-own /tmp/s /tmp/busybox-p";
    let wanted = [&["refused"; 6][..], &["refused", "refused", "wrote", "126", "runs", "126", "script", ""]].concat();
    same("output", suite.place()?.script(tries, &[])?, wanted.join("\n"))
}

const ACCOUNTS: &str = "mkdir -p /etc /home/tester; echo root::0:0::/:/bin/sh > /etc/passwd
    echo tester:x:1000:1000::/home/tester:/bin/sh >> /etc/passwd; echo root:x:0: > /etc/group; echo tester:x:1000: >> /etc/group
    chown 1000:1000 /home/tester";

fn su(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = format!(
        "{ACCOUNTS}; su tester -c 'id -un; touch /home/tester/f; touch /etc/no 2> /dev/null || echo refused'
         stat -c %u:%g /home/tester/f; id -u"
    );
    same("output", place.script(&script, &[])?.as_str(), "tester\nrefused\n1000:1000\n0\n")
}

fn set_user_id(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    place.script(&format!("{ACCOUNTS}; mkdir /sbin; cp /bin/busybox /sbin; chmod 4755 /sbin/busybox"), &[])?;
    same("mode", place.stat("sbin/busybox")?.mode, 0o4755)?;
    // busybox asks no password where the account has none.
    let ran = user(&place, &[], "/sbin/busybox su root -c 'id -u; echo x > /made' 2> /dev/null || echo refused")?;
    let logged = user(&place, &[], "grep -q 'NoNewPrivs:.1' /proc/self/status && echo yes; true")?;
    match suite.abilities().set_id {
        // The metadata log needs no_new_privs, and a step of a user has it where bits would be lost otherwise.
        true if suite.sandbox.name() == "inplace" && logged == "yes\n" => Ok(()),
        true => same("as its owner", ran.as_str(), "0\n").and_then(|()| same("owner", place.stat("made")?.uid, 0)),
        false => same("refused", ran.as_str(), "refused\n"),
    }
}

fn times(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "cd /tmp; touch -d '2001-02-03 04:05:06' f; mkdir d; touch -d @1000 d; stat -c %Y f d; chown 5:5 f; stat -c %Y f";
    same("output", place.script(script, &[])?.as_str(), "981173106\n1000\n981173106\n")?;
    same("file", place.stat("tmp/f")?.modified, (981_173_106, 0))?;
    same("directory", place.stat("tmp/d")?.modified, (1000, 0))
}
