//~ an exit is a function or a closure that captures nothing
use gkhi::{Flow, hook};

hook! {
    static OPEN: fn(inode: u64) = "open";
}

fn main() {
    let limit = std::env::args().count() as u64;
    let _exit = OPEN::exit(c"captures", (), move |_, inode| {
        if inode > limit { Flow::Terminate } else { Flow::Continue }
    });
}
