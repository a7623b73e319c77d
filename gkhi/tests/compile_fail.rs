//! What the types do not allow. The expected errors are next to the sources; `TRYBUILD=overwrite` writes them anew.

#[test]
fn wrong_prototypes_do_not_compile() {
    let cases = trybuild::TestCases::new();
    // One that compiles makes trybuild build instead of check: what a closure captures is found out only then.
    cases.pass("tests/compile-fail/right/*.rs");
    cases.compile_fail("tests/compile-fail/*.rs");
}
