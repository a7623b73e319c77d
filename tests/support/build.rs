//! Assembles the programs of the tests: tests/programs/*.rpn, and a family that counts at several places.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use rpn_asm::{Assembled, Diagnostics, Options};

/// The longest function that is probed at every instruction.
const PLACES: usize = 32;

fn main() {
    let programs = Path::new("../programs");
    println!("cargo::rerun-if-changed={}", programs.display());
    let mut objects = Vec::new();
    for entry in fs::read_dir(programs).expect("tests/programs is there").flatten() {
        let path = entry.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        objects.push((
            name.to_owned(),
            good(rpn_asm::assemble_file(&path, &Options::default())),
        ));
    }
    for places in 1..=PLACES {
        let name = format!("every{places}");
        let text = every(places);
        objects.push((name.clone(), good(rpn_asm::assemble(&name, &text, &Options::default()))));
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut table = String::new();
    for (name, assembled) in objects {
        let object = out.join(&name).with_extension("dpo");
        fs::write(&object, assembled.object).expect("OUT_DIR is writable");
        table += &format!("({name:?}, include_bytes!({object:?})),\n");
    }
    fs::write(out.join("programs.rs"), format!("&[\n{table}]\n")).expect("OUT_DIR is writable");
}

/// A program that does nothing but be hit, at `place0`, `place1`, ...
fn every(places: usize) -> String {
    let mut text = "name = \"kernel\"\nmodtype = kernel\nmajor = 100\n".to_owned();
    for place in 0..places {
        text += &format!("offset = place{place}\nminor = {place}\nabort\n");
    }
    text
}

fn good(result: Result<Assembled, Diagnostics>) -> Assembled {
    result.unwrap_or_else(|diagnostics| {
        eprintln!("{diagnostics}");
        process::exit(1)
    })
}
