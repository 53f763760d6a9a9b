//! The memory of a thread that waits for its answer.

use std::io;

use rustix::io::Errno;

use super::abi::Abi;

const PAGE: u64 = 4096;

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::FAULT)
}

/// Reads up to the end of what is mapped; gives how much.
fn read_some(thread: u32, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: the local vector is the whole of a live buffer; the remote address is only looked at in the other process.
    let count = unsafe { libc::process_vm_readv(thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| last_error())
}

/// Fills a buffer.
pub fn read(thread: u32, address: u64, to: &mut [u8]) -> Result<(), Errno> {
    if to.is_empty() {
        return Ok(());
    }
    match read_some(thread, address, to) {
        Ok(count) if count == to.len() => Ok(()),
        Ok(_) | Err(Errno::FAULT) => Err(Errno::FAULT),
        Err(error) => Err(error),
    }
}

pub fn bytes(thread: u32, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    read(thread, address, &mut bytes)?;
    Ok(bytes)
}

/// Numbers of type unsigned long, or addresses, one after the other.
pub fn words<const N: usize>(thread: u32, abi: Abi, address: u64) -> Result<[u64; N], Errno> {
    let bytes = bytes(thread, address, N * abi.word())?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(abi.word())) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    Ok(words)
}

/// Numbers of type long.
pub fn longs<const N: usize>(thread: u32, abi: Abi, address: u64) -> Result<[i64; N], Errno> {
    let words = words(thread, abi, address)?;
    Ok(words.map(|word| if abi.word() == 4 { i64::from(word as i32) } else { word as i64 }))
}

pub fn numbers32(thread: u32, address: u64, count: usize) -> Result<Vec<u32>, Errno> {
    let bytes = bytes(thread, address, count * 4)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

/// Text up to its end; at most `limit` bytes.
pub fn text(thread: u32, address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut page = [0; PAGE as usize];
    while text.len() < limit {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        // Not over the end of a page: the next one may not be there. Most paths are short and end before.
        let room = (PAGE - at % PAGE) as usize;
        let part = &mut page[..room.min(if text.is_empty() { 256 } else { PAGE as usize })];
        let count = read_some(thread, at, part)?;
        match part[..count].iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&part[..end]);
                return Ok(text);
            }
            None if count == 0 => return Err(Errno::FAULT),
            None => text.extend_from_slice(&part[..count]),
        }
    }
    Err(Errno::NAMETOOLONG)
}

pub fn path(thread: u32, address: u64) -> Result<Vec<u8>, Errno> {
    text(thread, address, libc::PATH_MAX as usize)
}

pub fn write(thread: u32, address: u64, from: &[u8]) -> Result<(), Errno> {
    if from.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: from.len() };
    // SAFETY: the local vector is only read from; the remote address is only looked at in the other process.
    let count = unsafe { libc::process_vm_writev(thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(count) {
        Ok(count) if count == from.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last_error()),
    }
}

/// The bytes of a structure that the kernel has filled.
pub fn raw<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the callers' structures are the kernel's, without padding that was never written: all were zeroed or filled by
    // the kernel before.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
