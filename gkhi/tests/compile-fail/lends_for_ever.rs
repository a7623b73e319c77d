//~ every exit would be given the same
gkhi::hook! {
    static OPEN: fn(inode: u64, flags: &'static mut u32) = "open";
}

fn main() {}
