//! What the types do not allow. Each source in `compile-fail` says in its first line, after `//~`, what the compiler's message must hold.
//!
//! The compiler is called directly, since what a closure captures is found out only when code is generated, and so that nothing but
//! gkhi is built for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn rustc(out: &Path, arguments: &[&str], source: &Path) -> Output {
    let mut command = Command::new("rustc");
    command.args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu", "--out-dir"]);
    command.arg(out).args(arguments).arg(source);
    command.output().unwrap()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn wrong_prototypes_do_not_compile() {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compile-fail");
    std::fs::create_dir_all(&out).unwrap();
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let hooks = ["--cfg", "feature=\"hooks\""];
    let made = rustc(
        &out,
        &["--crate-name", "gkhi", "--crate-type", "rlib", hooks[0], hooks[1]],
        &library,
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let library = format!("gkhi={}", out.join("libgkhi.rlib").display());
    let compile = |source: &Path| {
        let output = rustc(
            &out,
            &["--crate-type", "bin", "--emit", "obj", "--extern", &library],
            source,
        );
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    for source in sources("compile-pass") {
        let (success, message) = compile(&source);
        assert!(success, "{}: {message}", source.display());
    }
    let wrong = sources("compile-fail");
    assert!(wrong.len() >= 9);
    for source in wrong {
        let text = std::fs::read_to_string(&source).unwrap();
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//~ "))
            .expect("what the error is");
        let (success, message) = compile(&source);
        assert!(!success, "{} compiles", source.display());
        assert!(message.contains(expected), "{}: {message}", source.display());
    }
}
