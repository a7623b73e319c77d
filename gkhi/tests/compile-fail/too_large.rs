//~ the trait bound `[u8; 64]: Word` is not satisfied
gkhi::hook! {
    static OPEN: fn(name: [u8; 64]) = "open";
}

fn main() {}
