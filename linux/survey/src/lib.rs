//! Which instructions of a running kernel can be probed, and why the others cannot.
//!
//! Every instruction of every function that the kernel knows of is found in the text as it is in memory, after the kernel has patched
//! itself for the machine, and the module is asked about each: what is told is what inserting a probe there would come to. Two others check
//! where instructions begin: another decoder, and the lists that the kernel carries of its own instructions.

#![warn(missing_docs)]

pub mod ask;
pub mod decode;
pub mod kcore;
pub mod kprobes;
pub mod report;
pub mod survey;
pub mod symbols;
pub mod tables;
