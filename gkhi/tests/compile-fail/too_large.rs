gkhi::hook! {
    static OPEN: fn(name: [u8; 64]) = "open";
}

fn main() {}
