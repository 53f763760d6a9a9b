//! The loader that the kernel executes in the place of a program: it does what a table on its stack says, then jumps.
