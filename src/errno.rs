//! The errno values that this boundary itself returns, negative. The engine's own refusals carry theirs.

/// No engine: [`dprobes_init`](crate::dprobes_init) has not succeeded, or [`dprobes_exit`](crate::dprobes_exit) was called.
pub(crate) const ENODEV: i32 = -19;
/// No such map.
pub(crate) const ENOENT: i32 = -2;
/// There are several of the name.
pub(crate) const EEXIST: i32 = -17;
/// What is asked for changes all the time; it may be asked for again.
pub(crate) const EAGAIN: i32 = -11;
/// A pointer is null, a length is out of range, or the host table is not one that this library understands.
pub(crate) const EINVAL: i32 = -22;
/// There is more than there is room for.
pub(crate) const ENOSPC: i32 = -28;
/// There is an engine already.
pub(crate) const EBUSY: i32 = -16;
/// Memory is short.
pub(crate) const ENOMEM: i32 = -12;
/// The CPU or the kernel does not have it.
pub(crate) const EOPNOTSUPP: i32 = -95;
