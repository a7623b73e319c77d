//! The maps of a simulation, as those of the module are shown.

use dprobes::wire::{MapStatus, label};
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
    MapStatus {
        id: u64::from(index),
        major,
        index,
        name: label(named.name.as_bytes()),
        module: label(module.as_bytes()),
        ..MapStatus::of(&named.map)
    }
}
