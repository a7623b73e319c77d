//! The instruction module against oracles that others wrote: iced-x86, and the CPU that runs the tests.

mod binaries;
mod copies;
mod emulation;
mod exhaustive;
mod model;
mod native;
mod oracle;
mod properties;
mod random;
mod refusals;
mod shadows;
mod sweep;
