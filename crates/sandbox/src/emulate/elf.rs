//! Reading the headers of a program: what has to be mapped where, and which interpreter it wants.
