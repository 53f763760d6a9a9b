//! Sockets of the step.
//!
//! Before version 9 Landlock does not hold connect(2) to the path of a socket, and the path in a call's memory can be changed after it was
//! looked at. So the builder makes every socket, keeps a duplicate, and does on it what has an address: bind, connect, send.
//! What it reaches a file by is its own `/proc/self/fd/N`, which no rename of the step's changes. The kernel does a call itself
//! (`Reply::Continue`) only where neither another thread could exchange the descriptor for a socket of the AF_UNIX family nor
//! the socket is one.
//!
//! A duplicate goes when nothing with an address is left to be done: a peer is to see the end of a connection. A socket whose
//! duplicate has gone is taken from the process where the container allows it (pidfd_getfd(2)).
//!
//! Connections that the builder makes are the builder's for the kernel: who is behind one (SO_PEERCRED) is answered from what
//! was noted when it was made. With a datagram (SCM_CREDENTIALS) come the ids that the kernel knows.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use super::abi::Abi;
use super::caller::{AT_FDCWD, Caller, DONE, Handled, Held, Reply, errno};
use super::i386;
use super::ids::WRITE;
use super::memory;
use super::open::answer_with;
use super::place::{Spot, id_of, own_path, type_of, without_slashes};
use super::seats::Seat;
use crate::sys;

mod diag;
mod indirect;
mod known;
mod raw;

pub use raw::take;

pub use indirect::{PASSED, socketcall};
pub use known::Sockets;
use known::{Credentials, Kept};

const FAMILY: usize = size_of::<libc::sa_family_t>();
/// `linux/un.h`
const UNIX_PATH_MAX: usize = 108;
/// Most bytes of one message; more than any socket buffer takes by default (`net.core.wmem_max`).
const MESSAGE_MAX: usize = 4 << 20;
/// `linux/uio.h` UIO_MAXIOV
const VECTORS_MAX: u64 = 1024;
/// `asm-generic/socket.h`; after it comes SO_PEERPIDFD, for which the kernel has the builder in place of the peer.
const SO_PEERGROUPS: i32 = 59;
const CONTROL_MAX: u64 = 65536;

/// How a socket of the step is worked on.
enum Hold {
    /// By the builder, on a duplicate.
    Ours(Arc<Kept>),
    /// By the kernel. Safe: the process has one thread, which waits for us, and shares its descriptors with nobody (clone(2)
    /// with CLONE_FILES makes only threads, see `filter`); the socket stays what it is, and that is not of the AF_UNIX family,
    /// so that no address can be a path.
    Theirs,
}

/// Where an address of the AF_UNIX family leads.
struct To {
    /// The address for the kernel.
    address: Vec<u8>,
    /// What the step calls it.
    shown: Vec<u8>,
    /// The socket there, if the step made it.
    server: Option<u64>,
    _held: Option<Held>,
}

impl To {
    /// For the kernel to take or to refuse.
    fn plain(address: Vec<u8>) -> To {
        To { address, shown: Vec::new(), server: None, _held: None }
    }
}

impl Caller<'_> {
    fn sockets(&self) -> &Arc<Sockets> {
        &self.world.sockets
    }

    fn credentials(&self) -> Credentials {
        let ids = &self.view.ids;
        let (user, group) = (ids.user.effective, ids.group.effective);
        Credentials { process: self.view.process(), user, group, groups: ids.groups.clone() }
    }

    /// The right to wait in a thread of its own.
    fn seat(&self) -> Result<Seat, Errno> {
        self.sockets().seats.take(self.view.ids.user.effective).ok_or(Errno::AGAIN)
    }

    fn inode(&self, descriptor: usize) -> Result<u64, Errno> {
        raw::inode(self.call.thread, self.descriptor(descriptor))
    }

    fn socket(&self, descriptor: usize) -> Result<Hold, Errno> {
        let inode = self.inode(descriptor)?;
        let kept = self.sockets().kept(inode);
        let number = self.descriptor(descriptor);
        let is_unix = match &kept {
            Some(kept) => kept.is_unix(),
            None => raw::is_unix(self.call.thread, number)?,
        };
        if !is_unix && self.is_alone() {
            return Ok(Hold::Theirs);
        }
        match kept {
            Some(kept) => Ok(Hold::Ours(kept)),
            // It has had its address.
            None => self.taken(number).map(Hold::Ours).map_err(|_| Errno::ISCONN),
        }
    }

    fn taken(&self, number: i32) -> Result<Arc<Kept>, Errno> {
        let socket = raw::take(self.view.process(), number)?;
        let inode = raw::inode_of(&socket)?;
        let (domain, kind) =
            (raw::option(socket.as_fd(), libc::SO_DOMAIN)?, raw::option(socket.as_fd(), libc::SO_TYPE)?);
        Ok(Arc::new(Kept { socket, inode, domain, kind, given: AtomicBool::new(true) }))
    }

    /// Whether nobody can change the caller's descriptors before it has its answer.
    pub fn is_alone(&self) -> bool {
        sys::is_alone(self.view.thread)
    }

    fn address(&self, address: u64, length: u32) -> Result<Vec<u8>, Errno> {
        match length as usize {
            length if length > raw::ADDRESS_MAX => Err(Errno::INVAL),
            length => self.read(address, length),
        }
    }
}

fn family(address: &[u8]) -> Option<i32> {
    let family = address.get(..FAMILY)?.try_into().ok()?;
    Some(libc::sa_family_t::from_le_bytes(family).into())
}

fn unix_address(name: &[u8]) -> Vec<u8> {
    [&(libc::AF_UNIX as libc::sa_family_t).to_le_bytes(), name].concat()
}

fn path_address(path: &[u8]) -> Vec<u8> {
    [&unix_address(path), b"\0".as_slice()].concat()
}

/// (domain, type, protocol)
pub fn socket(caller: &Caller<'_>) -> Handled {
    let (domain, kind) = (caller.descriptor(0), caller.descriptor(1));
    // Without a network there is none of any kind: the builder's loopback interface has the builder's neighbours on it.
    if !caller.world.network && domain != libc::AF_UNIX {
        return Err(Errno::AFNOSUPPORT);
    }
    let close_on_exec = kind & libc::SOCK_CLOEXEC != 0;
    let make = || raw::socket(domain, kind, caller.descriptor(2));
    let socket = match make() {
        Err(Errno::MFILE) => {
            caller.sockets().sweep(&caller.world.tasks);
            make().map_err(|error| if error == Errno::MFILE { Errno::NFILE } else { error })?
        }
        made => made?,
    };
    let inode = raw::inode_of(&socket)?;
    let kind = kind & 0xf;
    let kept = Arc::new(Kept { socket, inode, domain, kind, given: AtomicBool::new(false) });
    // First kept: once the caller has it, any of its threads may use it.
    caller.sockets().keep(kept.clone(), &caller.world.tasks);
    let given = answer_with(caller, caller.listener, kept.socket.as_fd(), close_on_exec);
    kept.given.store(true, Ordering::Relaxed);
    if given.is_err() {
        caller.sockets().forget(inode);
    }
    given
}

/// socketpair(2) (domain, type, protocol, descriptors). Whose both are is noted; and datagram sockets can send to any path, so the
/// builder keeps them.
pub fn pair(caller: &Caller<'_>) -> Handled {
    let (kind, protocol) = (caller.descriptor(1), caller.descriptor(2));
    let close_on_exec = kind & libc::SOCK_CLOEXEC != 0;
    let mut numbers = Vec::new();
    let both = raw::pair(kind, protocol)?;
    caller.sockets().paired([raw::inode_of(&both[0])?, raw::inode_of(&both[1])?], &caller.credentials());
    for socket in both {
        if kind & 0xf != libc::SOCK_DGRAM && kind & 0xf != libc::SOCK_RAW {
            let number = caller.listener.give(caller.call, socket.as_fd(), close_on_exec)?;
            numbers.extend(number.to_le_bytes());
            continue;
        }
        let inode = raw::inode_of(&socket)?;
        let given = AtomicBool::new(false);
        let kept = Arc::new(Kept { socket, inode, domain: libc::AF_UNIX, kind: kind & 0xf, given });
        caller.sockets().keep(kept.clone(), &caller.world.tasks);
        numbers.extend(caller.listener.give(caller.call, kept.socket.as_fd(), close_on_exec)?.to_le_bytes());
        kept.given.store(true, Ordering::Relaxed);
    }
    caller.write(caller.arguments[3], &numbers)?;
    DONE
}

/// (socket, address, length)
pub fn bind(caller: &Caller<'_>) -> Handled {
    let Hold::Ours(kept) = caller.socket(0)? else { return Ok(Reply::Continue) };
    let address = caller.address(caller.arguments[1], caller.number(2))?;
    if !kept.is_unix() {
        if let Err(Errno::ADDRINUSE) = raw::bind(kept.socket.as_fd(), &address) {
            // By one that the step has closed, maybe.
            caller.sockets().sweep(&caller.world.tasks);
            raw::bind(kept.socket.as_fd(), &address)?;
        }
        return DONE;
    }
    match address.get(FAMILY) {
        Some(0) | None => bind_abstract(caller, &kept, &address),
        Some(_) if family(&address) != Some(libc::AF_UNIX) => Err(Errno::INVAL),
        Some(_) if address.len() > FAMILY + UNIX_PATH_MAX => Err(Errno::INVAL),
        Some(_) => bind_path(caller, &kept, diag::without_end(&address[FAMILY..])),
    }
}

/// A name that the kernel keeps; without one it chooses.
fn bind_abstract(caller: &Caller<'_>, kept: &Kept, address: &[u8]) -> Handled {
    raw::bind(kept.socket.as_fd(), address)?;
    let name = raw::name(kept.socket.as_fd())?;
    let name = name.get(FAMILY..).unwrap_or_default().to_vec();
    caller.sockets().bound_abstract(name, kept.inode, caller.credentials());
    DONE
}

/// Under a name of its own first, so that each socket has another address for the kernel and the path is short enough.
fn bind_path(caller: &Caller<'_>, kept: &Kept, path: &[u8]) -> Handled {
    let (path, slash) = without_slashes(path);
    let target = caller.walk(AT_FDCWD, path, false)?;
    let Spot::Entry(dir, name) = target.spot else { return Err(Errno::ADDRINUSE) };
    if target.found.is_some() || caller.world.places.is_mounted(&dir, name.to_bytes()) {
        return Err(Errno::ADDRINUSE);
    }
    if slash {
        return Err(Errno::NOENT);
    }
    caller.may_add(&dir)?;
    let first = format!(".zuwai-{}-{}", std::process::id(), caller.sockets().serial());
    let kernel = [own_path(dir.fd.as_fd()).to_bytes(), b"/", first.as_bytes()].concat();
    raw::bind(kept.socket.as_fd(), &path_address(&kernel))?;
    let mode = 0o777 & !caller.view.umask;
    let wanted = caller.new_file(&dir, mode, false)?;
    let made = CString::new(first.as_bytes()).map_err(|_| Errno::INVAL)?;
    let id = id_of(&caller.make(&dir, &made, (wanted, mode | 0o600), || Ok(()))?);
    let renamed = match rustix::fs::renameat_with(&dir.fd, &*first, &dir.fd, &name, RenameFlags::NOREPLACE) {
        // Not every file system can keep what is there.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::linkat(&dir.fd, &*first, &dir.fd, &name, AtFlags::empty())
            .and_then(|()| rustix::fs::unlinkat(&dir.fd, &*first, AtFlags::empty())),
        renamed => renamed,
    };
    if let Err(error) = renamed {
        let _ = rustix::fs::unlinkat(&dir.fd, &*first, AtFlags::empty());
        return Err(if error == Errno::EXIST { Errno::ADDRINUSE } else { error });
    }
    let absolute = caller.world.places.path_of_entry(&dir, name.to_bytes())?;
    caller.sockets().bound(kept.inode, id, kernel, path.to_vec(), absolute, caller.credentials());
    DONE
}

/// (socket, backlog)
pub fn listen(caller: &Caller<'_>) -> Handled {
    if let Ok(inode) = caller.inode(0) {
        // One without a name does not listen.
        let is_named = |kept: Arc<Kept>| raw::name(kept.socket.as_fd()).is_ok_and(|name| name.len() > FAMILY);
        if caller.sockets().kept(inode).is_none_or(|kept| !kept.is_unix() || is_named(kept)) {
            caller.sockets().listens(inode, caller.credentials());
        }
    }
    // Safe: the call has no pointers. Who listens is the caller for the kernel as well.
    Ok(Reply::Continue)
}

/// Finds out where an address leads, and that the caller may go there.
fn resolve(caller: &Caller<'_>, address: &[u8]) -> Result<To, Errno> {
    let same = || To::plain(address.to_vec());
    if family(address) == Some(libc::AF_UNSPEC) {
        return Ok(same());
    }
    if family(address) != Some(libc::AF_UNIX) || address.len() > FAMILY + UNIX_PATH_MAX {
        return Err(Errno::INVAL);
    }
    match &address[FAMILY..] {
        // The kernel says what is wrong with it.
        [] => Ok(same()),
        [0, ..] => {
            let server = abstract_server(caller, &address[FAMILY..])?;
            Ok(To { shown: address[FAMILY..].to_vec(), server: Some(server), ..same() })
        }
        path => path_to(caller, diag::without_end(path)),
    }
}

/// Only the step's own: a name without a path is in no rootfs. Landlock's scope, where the kernel has it, goes by who made
/// the socket, and that is the builder.
fn abstract_server(caller: &Caller<'_>, name: &[u8]) -> Result<u64, Errno> {
    let inode = caller.sockets().abstract_name(name).ok_or(Errno::CONNREFUSED)?;
    match diag::look(inode) {
        Ok(found) if found.name == name => Ok(inode),
        Ok(_) | Err(Errno::NOENT) => Err(Errno::CONNREFUSED),
        // The kernel does not tell. A name that another program took over since would be reached.
        Err(_) => Ok(inode),
    }
}

fn path_to(caller: &Caller<'_>, path: &[u8]) -> Result<To, Errno> {
    let known = caller.sockets().absolute_for(path);
    let target = caller.walk(AT_FDCWD, known.as_deref().unwrap_or(path), true)?;
    let found = *target.existing()?;
    // `net/unix/af_unix.c` unix_find_bsd
    caller.view.ids.may(&found, WRITE)?;
    if type_of(&found) != FileType::Socket {
        return Err(Errno::CONNREFUSED);
    }
    if !matches!(target.spot, Spot::Entry(_, _) | Spot::Mapped(_)) {
        return Err(Errno::CONNREFUSED);
    }
    let held = caller.hold(target)?;
    caller.view.ids.may(&held.found, WRITE)?;
    let address = path_address(held.path.to_bytes());
    let server = caller.sockets().server(id_of(&held.real));
    // The peer's name is the one that the server has given itself.
    let shown = server.and_then(|server| caller.sockets().shown(server)).unwrap_or_else(|| path.to_vec());
    Ok(To { address, shown, server, _held: Some(held) })
}

/// (socket, address, length)
pub fn connect(caller: &Caller<'_>) -> Handled {
    let inode = caller.inode(0)?;
    let Hold::Ours(kept) = caller.socket(0)? else {
        if caller.sockets().kept(inode).is_some_and(|kept| kept.is_stream()) {
            caller.sockets().forget(inode);
        }
        return Ok(Reply::Continue);
    };
    let address = caller.address(caller.arguments[1], caller.number(2))?;
    if address.len() < FAMILY {
        return Err(Errno::INVAL);
    }
    let to = match kept.is_unix() {
        true => resolve(caller, &address)?,
        false => To::plain(address),
    };
    let may_wait = raw::waits(kept.socket.as_fd()) && (kept.is_stream() || !kept.is_unix());
    let (sockets, client) = (caller.sockets().clone(), caller.credentials());
    let work = move || {
        // All of it, with the file that its address leads to.
        let to = to;
        let connect = || raw::connect(kept.socket.as_fd(), &to.address);
        sockets.connecting(&kept, to.server, to.shown, client, connect).map(|()| 0)
    };
    if may_wait { wait_for(caller, work) } else { work().map(Reply::Value) }
}

/// Does what may take long in a thread of its own, which answers the caller.
fn wait_for(caller: &Caller<'_>, work: impl FnOnce() -> Result<i64, Errno> + Send + 'static) -> Handled {
    let seat = caller.seat()?;
    let (listener, call) = (caller.listener.share().map_err(errno)?, *caller.call);
    let answered = move || {
        let _ = listener.reply(&call, work());
        drop(seat);
    };
    spawn::thread_now("socket", answered).map_err(|_| Errno::AGAIN)?;
    Ok(Reply::Given)
}

/// A message of the caller's, copied.
struct Message {
    address: Vec<u8>,
    data: Vec<u8>,
    control: Vec<u8>,
    flags: i32,
}

fn send(caller: &Caller<'_>, kept: &Arc<Kept>, mut message: Message) -> Result<Sent, Errno> {
    let mut to = None;
    if kept.is_unix() {
        // The kernel does not look where it leads, only that there is one (`net/unix/af_unix.c` unix_stream_sendmsg).
        let found = match &message.address[..] {
            [] => To::plain(Vec::new()),
            _ if kept.is_stream() => To::plain(unix_address(b"\0")),
            address => resolve(caller, address)?,
        };
        message.address.clone_from(&found.address);
        // Of the two kinds that there are, descriptors cannot be taken along, and the ids are the builder's already.
        if holds_descriptors(&message.control) {
            return Err(Errno::PERM);
        }
        message.control.clear();
        to = Some(found);
    }
    let again = libc::MSG_DONTWAIT;
    match raw::send(kept.socket.as_fd(), &message.data, &message.control, &message.address, message.flags | again) {
        Err(Errno::AGAIN) if message.flags & again == 0 && raw::waits(kept.socket.as_fd()) => {
            let kept = kept.clone();
            Ok(Sent::Waiting(Box::new(move || {
                let _to = to;
                raw::send(kept.socket.as_fd(), &message.data, &message.control, &message.address, message.flags)
            })))
        }
        sent => sent.map(Sent::Done),
    }
}

enum Sent {
    Done(i64),
    Waiting(Box<dyn FnOnce() -> Result<i64, Errno> + Send>),
}

fn finish(caller: &Caller<'_>, sent: Sent) -> Handled {
    match sent {
        Sent::Done(count) => caller.ok(count),
        Sent::Waiting(work) => wait_for(caller, work),
    }
}

/// SCM_RIGHTS among control messages (`struct cmsghdr`).
fn holds_descriptors(control: &[u8]) -> bool {
    let mut rest = control;
    while let Some((head, _)) = rest.split_at_checked(16) {
        let [length, kind] = [0, 8].map(|at| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default()));
        if kind as i32 == libc::SOL_SOCKET && (kind >> 32) as i32 == libc::SCM_RIGHTS {
            return true;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).checked_next_multiple_of(8).unwrap_or(usize::MAX);
        rest = rest.get(length.max(16)..).unwrap_or_default();
    }
    false
}

fn data(caller: &Caller<'_>, address: u64, length: u64) -> Result<Vec<u8>, Errno> {
    match usize::try_from(length) {
        Ok(length) if length <= MESSAGE_MAX => caller.read(address, length),
        _ => Err(Errno::MSGSIZE),
    }
}

/// (socket, data, length, flags, address, length)
pub fn send_to(caller: &Caller<'_>) -> Handled {
    let Hold::Ours(kept) = caller.socket(0)? else { return Ok(Reply::Continue) };
    let address = caller.address(caller.arguments[4], caller.number(5))?;
    let data = data(caller, caller.arguments[1], caller.arguments[2])?;
    let message = Message { address, data, control: Vec::new(), flags: caller.descriptor(3) };
    finish(caller, send(caller, &kept, message)?)
}

/// The parts of a `struct msghdr`.
struct Header {
    address: (u64, u32),
    vectors: (u64, u64),
    control: (u64, u64),
}

/// `sizeof(struct msghdr)`, and with the count that follows it in a `struct mmsghdr`
fn sizes_of_header(caller: &Caller<'_>) -> (u64, u64) {
    match caller.call.abi() {
        Abi::Own => (56, 64),
        Abi::I386 => (28, 32),
    }
}

fn header(caller: &Caller<'_>, at: u64) -> Result<Header, Errno> {
    let [name, length, vectors, count, control, control_length, _] = caller.words(at)?;
    Ok(Header { address: (name, length as u32), vectors: (vectors, count), control: (control, control_length) })
}

impl Header {
    fn has_address(&self) -> bool {
        self.address.0 != 0 && self.address.1 != 0
    }

    fn message(&self, caller: &Caller<'_>, flags: i32) -> Result<Message, Errno> {
        let (vectors, count) = self.vectors;
        if count > VECTORS_MAX || self.control.1 > CONTROL_MAX {
            return Err(Errno::MSGSIZE);
        }
        let mut all = Vec::new();
        let size = 2 * caller.call.abi().word() as u64;
        for index in 0..count {
            let at = vectors.checked_add(size * index).ok_or(Errno::FAULT)?;
            let [base, length] = caller.words(at)?;
            all.extend(data(caller, base, length)?);
            if all.len() > MESSAGE_MAX {
                return Err(Errno::MSGSIZE);
            }
        }
        let mut control = if self.control.0 == 0 { Vec::new() } else { data(caller, self.control.0, self.control.1)? };
        if caller.call.abi() == Abi::I386 {
            control = i386::control(&control)?;
        }
        let address = caller.address(self.address.0, self.address.1)?;
        Ok(Message { address, data: all, control, flags })
    }
}

/// A message without an address. With one thread it is safe to have the kernel send it if it is not from a datagram socket of
/// the AF_UNIX family, which no other socket can become. With more, one that exchanges both the descriptor and the message in
/// the moment after this answer could send a datagram to a socket of the host that the builder may write to, if there is one;
/// it would get no connection and no answer by that, and from version 9 on Landlock refuses it. To stop other threads or to refuse programs that have some to send
/// descriptors is worse.
fn without_address(caller: &Caller<'_>) -> Handled {
    match caller.inode(0) {
        Ok(_) | Err(Errno::NOTSOCK | Errno::BADF) => Ok(Reply::Continue),
        Err(error) => Err(error),
    }
}

/// (socket, message, flags)
pub fn send_message(caller: &Caller<'_>) -> Handled {
    let header = header(caller, caller.arguments[1])?;
    if !header.has_address() {
        return match sent_by_us(caller)? {
            // From a datagram socket that is connected: nothing may come between the look and the sending.
            Some(kept) => send_connected(caller, &kept, &header),
            None => without_address(caller),
        };
    }
    let Hold::Ours(kept) = caller.socket(0)? else { return Ok(Reply::Continue) };
    finish(caller, send(caller, &kept, header.message(caller, caller.descriptor(2))?)?)
}

/// The duplicate of a datagram socket of the AF_UNIX family.
fn sent_by_us(caller: &Caller<'_>) -> Result<Option<Arc<Kept>>, Errno> {
    let kept = caller.inode(0).ok().and_then(|inode| caller.sockets().kept(inode));
    Ok(kept.filter(|kept| kept.is_unix() && !kept.is_stream()))
}

fn send_connected(caller: &Caller<'_>, kept: &Arc<Kept>, header: &Header) -> Handled {
    let message = header.message(caller, caller.descriptor(2))?;
    // The kernel would read the address again, which may be there by then, and the builder has no such descriptors.
    if holds_descriptors(&message.control) {
        return Err(Errno::PERM);
    }
    let message = Message { address: Vec::new(), control: Vec::new(), ..message };
    let again = libc::MSG_DONTWAIT;
    match raw::send(kept.socket.as_fd(), &message.data, &[], &[], message.flags | again) {
        Err(Errno::AGAIN) if message.flags & again == 0 && raw::waits(kept.socket.as_fd()) => {
            let kept = kept.clone();
            wait_for(caller, move || raw::send(kept.socket.as_fd(), &message.data, &[], &[], message.flags))
        }
        sent => sent.map(Reply::Value),
    }
}

/// (socket, messages, count, flags)
pub fn send_messages(caller: &Caller<'_>) -> Handled {
    let count = u64::from(caller.number(2)).min(VECTORS_MAX);
    let (size, counted) = sizes_of_header(caller);
    let at = |index: u64| caller.arguments[1].checked_add(index * counted).ok_or(Errno::FAULT);
    let headers = (0..count).map(|index| header(caller, at(index)?)).collect::<Result<Vec<_>, _>>()?;
    if !headers.iter().any(Header::has_address) && sent_by_us(caller)?.is_none() {
        return without_address(caller);
    }
    let Hold::Ours(kept) = caller.socket(0)? else { return Ok(Reply::Continue) };
    let mut done = 0;
    for (index, header) in headers.iter().enumerate() {
        let message = header.message(caller, caller.descriptor(3) | libc::MSG_DONTWAIT)?;
        match send(caller, &kept, message) {
            Ok(Sent::Done(length)) => caller.write(at(index as u64)? + size, &(length as u32).to_le_bytes())?,
            // The caller sees that the rest is still to be sent.
            Ok(Sent::Waiting(_)) => break,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        done += 1;
    }
    if done == 0 { Err(Errno::AGAIN) } else { caller.ok(done) }
}

/// Writes as much as there is room for and how much there is.
fn fill(caller: &Caller<'_>, at: u64, length: u64, value: &[u8]) -> Handled {
    let room = memory::numbers32(caller.call.thread, length, 1)?[0] as usize;
    caller.write(at, &value[..value.len().min(room)])?;
    caller.write(length, &(value.len() as u32).to_le_bytes())?;
    DONE
}

fn named(name: &[u8]) -> Vec<u8> {
    match name {
        [] | [0, ..] => unix_address(name),
        path => path_address(path),
    }
}

/// getsockname(2) (socket, address, length)
pub fn own_name(caller: &Caller<'_>) -> Handled {
    let inode = caller.inode(0)?;
    let shown = caller.sockets().shown(inode).or_else(|| accepted_name(caller, inode));
    // Safe: the call only gives what the caller has.
    shown.map_or(Ok(Reply::Continue), |name| fill(caller, caller.arguments[1], caller.arguments[2], &named(&name)))
}

/// A socket that was accepted has the name of the one that listens.
fn accepted_name(caller: &Caller<'_>, inode: u64) -> Option<Vec<u8>> {
    if !raw::is_unix(caller.call.thread, caller.descriptor(0)).ok()? {
        return None;
    }
    let found = diag::look(inode).ok()?;
    caller.sockets().shown_for(&found.name)
}

/// getpeername(2) (socket, address, length)
pub fn peer_name(caller: &Caller<'_>) -> Handled {
    let inode = caller.inode(0)?;
    let shown = caller.sockets().shown_peer(inode).filter(|name| !name.is_empty());
    let shown = shown.or_else(|| caller.sockets().shown(peer(caller, inode)?));
    // Safe: the call only gives what the caller may know.
    shown.map_or(Ok(Reply::Continue), |name| fill(caller, caller.arguments[1], caller.arguments[2], &named(&name)))
}

fn peer(caller: &Caller<'_>, inode: u64) -> Option<u64> {
    raw::is_unix(caller.call.thread, caller.descriptor(0)).ok()?.then(|| diag::look(inode).ok()?.peer)?
}

/// getsockopt(2) (socket, level, option, value, length) of the options that say who the peer is; one that is not noted any more is
/// nobody.
pub fn peer_option(caller: &Caller<'_>) -> Handled {
    // A descriptor of the peer's process would be one of the builder's.
    if !matches!(caller.descriptor(2), libc::SO_PEERCRED | SO_PEERGROUPS) {
        return Err(Errno::NOPROTOOPT);
    }
    let inode = caller.inode(0)?;
    if !raw::is_unix(caller.call.thread, caller.descriptor(0))? {
        // Safe: such a socket knows no peer's ids.
        return Ok(Reply::Continue);
    }
    let peer = peer_of(caller, inode);
    let value: Vec<u8> = match caller.descriptor(2) {
        libc::SO_PEERCRED if peer.process == 0 => {
            [0, u32::MAX, u32::MAX].into_iter().flat_map(u32::to_le_bytes).collect()
        }
        libc::SO_PEERCRED => [peer.process, peer.user, peer.group].into_iter().flat_map(u32::to_le_bytes).collect(),
        _ => peer.groups.iter().flat_map(|group| group.to_le_bytes()).collect(),
    };
    let length = memory::numbers32(caller.call.thread, caller.arguments[4], 1)?[0] as usize;
    if length < value.len() && caller.descriptor(2) != libc::SO_PEERCRED {
        caller.write(caller.arguments[4], &(value.len() as u32).to_le_bytes())?;
        return Err(Errno::RANGE);
    }
    let given = &value[..value.len().min(length)];
    caller.write(caller.arguments[3], given)?;
    caller.write(caller.arguments[4], &(given.len() as u32).to_le_bytes())?;
    DONE
}

fn peer_of(caller: &Caller<'_>, inode: u64) -> Credentials {
    let sockets = caller.sockets();
    let of_nobody = || Credentials { process: 0, user: u32::MAX, group: u32::MAX, groups: Arc::from([]) };
    if let Some(server) = sockets.server_of(inode) {
        return server;
    }
    if sockets.kept(inode).is_some() {
        return of_nobody();
    }
    let client = match diag::look(inode) {
        Ok(found) => found.peer.and_then(|peer| sockets.client(peer)),
        // The kernel does not tell whose it is: most ask as soon as somebody has connected.
        Err(_) => sockets.latest_client(),
    };
    client.unwrap_or_else(of_nobody)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn control(length: u64, kind: i32) -> Vec<u8> {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(libc::SOL_SOCKET.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.resize(bytes.len().max(length.min(64) as usize).next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn descriptors_are_found_wherever_they_are() {
        let (ids, rights) = (control(28, libc::SCM_CREDENTIALS), control(20, libc::SCM_RIGHTS));
        for (bytes, wanted) in [
            (Vec::new(), false),
            (ids.clone(), false),
            (rights.clone(), true),
            ([ids.clone(), rights.clone()].concat(), true),
            // Lengths that lead nowhere.
            (control(0, libc::SCM_CREDENTIALS), false),
            ([control(0, libc::SCM_CREDENTIALS), rights].concat(), true),
            (control(u64::MAX, libc::SCM_CREDENTIALS), false),
            (ids[..12].to_vec(), false),
        ] {
            assert_eq!(holds_descriptors(&bytes), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn the_kernel_says_who_a_peer_is() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        match diag::look(raw::inode_of(&one).unwrap()) {
            Ok(found) => {
                assert_eq!(found.peer, Some(raw::inode_of(&other).unwrap()));
                let name = diag::look(raw::inode_of(&listener).unwrap()).unwrap().name;
                assert!(name.ends_with(b"/s"), "{name:?}");
                assert_eq!(diag::look(u64::from(u32::MAX)).unwrap_err(), Errno::NOENT);
            }
            Err(error) => eprintln!("skipped: the kernel has no diagnosis of sockets: {error}"),
        }
    }
}
