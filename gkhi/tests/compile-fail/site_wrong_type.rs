//~ mismatched types
use gkhi::{fire, hook};

hook! {
    static OPEN: fn(inode: u64) = "open";
}

fn main() {
    fire!(OPEN, "a name");
}
