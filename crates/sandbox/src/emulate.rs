//! The `emulate` back-end: a step that believes to be root in its own rootfs, for any user without any capability.
//!
//! Its system calls about files and ids wait for the builder (seccomp user notification), which resolves paths beneath the
//! rootfs with its own code, does the work, and gives back descriptors and answers; owners, modes, devices and capabilities
//! are kept in the tree's table. A Landlock domain without any right is the second wall: by itself the step opens nothing.

mod elf;
mod exec;
mod stub;
