//! What a malicious step does: the suite's own program, started again inside the rootfs, for what busybox cannot do.
//!
//! An attack prints one line for each thing that it tried: whether it got what it must not get, or by what error it did not.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::suite;
use crate::{Process, sys};

mod call;
mod files;
mod handed;
mod hostile;
mod kernel;
mod processes;
mod slashes;
mod sockets;
mod users;

pub use hostile::NAMES;

/// First argument of a program that is an attack; the second says which.
const WORD: &str = "attack";

/// Where the program is in a rootfs.
pub const PROGRAM: &str = "/attack";

type Attack = fn(&mut Outcomes, &[String]) -> io::Result<()>;

const ATTACKS: &[(&str, Attack)] = &[
    ("look", processes::look),
    ("signal", processes::signal),
    ("limit", processes::limit),
    ("lower", processes::lower),
    ("keepers", processes::keepers),
    ("connect", files::connect),
    ("read", files::read),
    ("write", files::write),
    ("kernel", kernel::calls),
    ("keys", kernel::keys),
    ("capability", files::capability),
    ("socket", files::socket),
    ("sockets", sockets::own),
    ("exchange", sockets::exchange),
    ("talk", sockets::talk),
    ("crowd", sockets::crowd),
    ("others", users::others),
    ("objects", users::shared_objects),
    ("give", handed::give),
    ("take", handed::take),
    ("deep", hostile::deep),
    ("descriptors", hostile::descriptors),
    ("forks", hostile::forks),
    ("comets", hostile::comets),
    ("names", hostile::names),
    ("race", hostile::race),
    ("slashes", slashes::slashes),
];

/// Runs an attack when the process was started for one, and never returns then. Early in `main`.
pub fn dispatch() {
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let [_, word, name, rest @ ..] = &arguments[..] else { return };
    if word != WORD {
        return;
    }
    let attack = ATTACKS.iter().find(|(known, _)| known == name);
    let mut outcomes = Outcomes::default();
    let ended = attack.map_or(Err(io::ErrorKind::NotFound.into()), |(_, attack)| attack(&mut outcomes, rest));
    let _ = outcomes.print();
    if let Err(error) = &ended {
        let _ = writeln!(io::stderr(), "attack `{name}`: {error}");
    }
    sys::exit_now(i32::from(ended.is_err()))
}

/// A step that is this attack. The program must be in its rootfs ([`install`]).
pub fn process(name: &str, arguments: &[&str]) -> Process {
    let start: &[&str] = if loader().is_some() { &[LOADER, "--library-path", LIBRARIES] } else { &[] };
    suite::process(&[start, &[PROGRAM, WORD, name], arguments].concat())
}

/// The same attack on a directory of this machine, without a step.
pub fn natively(name: &str, arguments: &[&str]) -> Result<Outcomes, String> {
    let mut command = std::process::Command::new("/proc/self/exe");
    let ran = command.args([&[WORD, name], arguments].concat()).output().map_err(|error| error.to_string())?;
    match ran.status.success() {
        true => parse(&String::from_utf8_lossy(&ran.stdout)),
        false => Err(format!("attack `{name}` outside of a step: {}", String::from_utf8_lossy(&ran.stderr))),
    }
}

/// Where a program that is not static has what it needs.
const LIBRARIES: &str = "/attack-libraries";
const LOADER: &str = "/attack-libraries/loader";

/// Copies this program into a rootfs, with the libraries that it is linked with.
pub fn install(rootfs: &Path) -> io::Result<()> {
    fs::copy("/proc/self/exe", rootfs.join(&PROGRAM[1..]))?;
    let Some(loader) = loader() else { return Ok(()) };
    fs::create_dir(rootfs.join(&LIBRARIES[1..]))?;
    fs::copy(loader, rootfs.join(&LOADER[1..]))?;
    for library in libraries() {
        let name = library.file_name().unwrap_or_default();
        fs::copy(&library, rootfs.join(&LIBRARIES[1..]).join(name))?;
    }
    Ok(())
}

/// Shared objects that are mapped into this process (proc_pid_maps(5)).
fn libraries() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut found: Vec<PathBuf> =
        maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..]))).collect();
    found.retain(|path| path.to_string_lossy().contains(".so"));
    found.dedup();
    found
}

fn loader() -> Option<PathBuf> {
    libraries().into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-")))
}

/// A key in this process's user keyring, where it may have one.
pub fn add_key(name: &str) -> io::Result<()> {
    kernel::add_key(name)
}

/// What an attack tried, in order: what it was, and the error that kept it from it.
#[derive(Default, PartialEq, Debug)]
pub struct Outcomes(Vec<(String, Option<String>)>);

impl Outcomes {
    /// Notes that something was tried; success is what must not be.
    fn note<T>(&mut self, what: impl Into<String>, got: io::Result<T>) {
        let refused = got.err().map(|error| sys::plain(&error));
        self.0.push((what.into(), refused));
    }

    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (what, refused) in &self.0 {
            match refused {
                Some(error) => writeln!(out, "refused\t{what}\t{error}")?,
                None => writeln!(out, "reached\t{what}\t")?,
            }
        }
        out.flush()
    }

    /// How many things were tried.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn reached(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, refused)| refused.is_none()).map(|(what, _)| what.as_str()).collect()
    }

    /// Fails with the first thing that was otherwise in `wanted`.
    pub fn same_as(&self, wanted: &Outcomes) -> Result<(), String> {
        let mut pairs = self.0.iter().zip(&wanted.0);
        let said = |(what, refused): &(String, Option<String>)| match refused {
            Some(error) => format!("{what}: {error}"),
            None => what.clone(),
        };
        match pairs.find(|(got, wanted)| got != wanted) {
            Some((got, wanted)) => Err(format!("{}, but here: {}", said(wanted), said(got))),
            None if self.0.len() != wanted.0.len() => Err("not everything was tried".into()),
            None => Ok(()),
        }
    }

    /// What became of everything else.
    pub fn without(mut self, is: fn(&str) -> bool) -> Outcomes {
        self.0.retain(|(what, _)| !is(what));
        self
    }

    /// Fails where anything was reached, or nothing was tried.
    pub fn all_refused(&self) -> Result<(), String> {
        match (self.0.len(), &self.reached()[..]) {
            (0, _) => Err("nothing was tried".into()),
            (_, []) => Ok(()),
            (_, reached) => Err(format!("reached: {}", reached.join("; "))),
        }
    }
}

/// The outcomes that an attack printed.
pub fn parse(printed: &str) -> Result<Outcomes, String> {
    let parts = printed.lines().map(|line| {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        match parts[..] {
            ["reached", what, _] => Ok((what.to_owned(), None)),
            ["refused", what, error] => Ok((what.to_owned(), Some(error.to_owned()))),
            _ => Err(format!("an attack printed {line:?}")),
        }
    });
    parts.collect::<Result<_, _>>().map(Outcomes)
}
