//! Patching text: transactions over live code, and slots for out-of-line copies.

pub(crate) mod slot;
pub(crate) mod transaction;
