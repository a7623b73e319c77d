//! The maps of a simulation, as those of the module are shown.

use dprobes::aggregate::Kind;
use dprobes::wire::MapStatus;
use simulator::{NamedMap, Simulation};

use super::Context;
use crate::map::{Map, entries};
use crate::render::maps::{self, Canvas};

/// Columns: the same wherever it is printed.
const WIDTH: usize = 80;

/// All maps as text.
pub fn text(context: &Context<'_>, simulation: &Simulation) -> String {
    let canvas = Canvas {
        width: WIDTH,
        charset: context.charset,
        addresses: &context.addresses,
        names: context.names,
    };
    all(context, simulation).map(|map| maps::text(&map, canvas)).collect()
}

/// All maps as JSON, one a line.
pub fn lines(context: &Context<'_>, simulation: &Simulation) -> String {
    all(context, simulation)
        .map(|map| maps::line(&map, &context.addresses))
        .collect()
}

fn all<'a>(context: &'a Context<'_>, simulation: &'a Simulation) -> impl Iterator<Item = Map> + 'a {
    let module = context.program.identity().0;
    (0..).zip(simulation.maps()).map(move |(index, named)| {
        let status = status(named, index, &module, context.major);
        let spec = *named.map.spec();
        Map {
            status,
            spec,
            entries: entries(&spec, &read(named)),
            dropped: named.map.dropped(),
        }
    })
}

/// The bytes of all entries.
fn read(named: &NamedMap) -> Vec<u8> {
    // Nobody writes meanwhile: what does not fit the first time is all there is.
    let count = named.map.read(None, &mut []).map_or(0, |reading| reading.left);
    let mut bytes = vec![0; count * named.map.spec().entry_bytes()];
    match named.map.read(None, &mut bytes) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

fn status(named: &NamedMap, index: u16, module: &str, major: u16) -> MapStatus {
    let spec = named.map.spec();
    let (min, max, step) = match spec.kind() {
        Kind::Linear(linear) => (linear.min(), linear.max(), linear.step()),
        _ => (0, 0, 0),
    };
    MapStatus {
        id: u64::from(index),
        major,
        index,
        kind: spec.kind().code().into(),
        keys: spec.keys() as u32,
        entries: spec.entries(),
        min,
        max,
        step,
        bytes: named.map.bytes(),
        dropped: named.map.dropped(),
        entry_bytes: spec.entry_bytes() as u32,
        reserved: 0,
        name: label(&named.name),
        module: label(module),
    }
}

/// Text in a place of a fixed size, cut if it is longer.
fn label(text: &str) -> [u8; 64] {
    let mut label = [0; 64];
    for (to, from) in label.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    label
}
