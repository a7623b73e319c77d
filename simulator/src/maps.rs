//! The maps of a program, kept by the code that keeps them in a kernel.

use dprobes::aggregate::Map;
use dprobes::rpn::object;

/// CPUs that a map has tables for. A hit on another one counts there as one on the CPU with that number modulo this.
const CPUS: u32 = 8;

/// A map and its name.
#[derive(Debug)]
pub struct NamedMap {
    /// Its name in the program.
    pub name: String,
    /// What was added to it.
    pub map: Map,
}

impl NamedMap {
    /// An empty map as an object describes it; `None` if there can be no such map, or no memory for it.
    pub(crate) fn new(described: &object::Map<'_>) -> Option<Self> {
        Some(Self {
            name: described.name.to_owned(),
            map: Map::new(described.spec().ok()?, CPUS as usize, 0).ok()?,
        })
    }

    pub(crate) fn add(&self, cpu: u32, keys: &[u64], value: u64) {
        self.map.update((cpu % CPUS) as usize, keys, value);
    }
}
