//! The whole suite, under every engine. `cargo xtask conformance` prints the
//! matrix; here it is printed if a cell failed that is not known to.

use std::io::Write;

use ripstop_conformance::engine::Engine;
use ripstop_conformance::known::judge;
use ripstop_conformance::options::{Options, Output};
use ripstop_conformance::suite;

fn conforms(engine: Engine) {
    let mut options = Options {
        engine: vec![engine],
        family: Vec::new(),
        stack: Vec::new(),
        scenario: Vec::new(),
        list: false,
        parallel: 8,
        patience: 20,
        output: Output::Text,
    };
    let client = env!("CARGO_BIN_EXE_ripstop-conformance");
    let mut matrix = suite::run(&options, client).unwrap();
    let mut judgement = judge(&matrix);
    // Not captured: whoever runs the tests is to see them.
    let mut stderr = std::io::stderr().lock();
    for cell in &judgement.known {
        writeln!(stderr, "known failure: {cell}").unwrap();
    }
    // What fails once in many runs is a fault to be found, and is shown as one; it
    // does not keep other work from landing.
    if !judgement.new.is_empty() {
        for cell in &judgement.new {
            writeln!(stderr, "failed, and is tried again: {cell}").unwrap();
        }
        options.scenario = judgement
            .scenarios
            .iter()
            .map(ToString::to_string)
            .collect();
        matrix = suite::run(&options, client).unwrap();
        judgement.new = judge(&matrix).new;
    }
    assert_eq!(judgement.new, Vec::<String>::new(), "\n{}", matrix.text());
    assert_eq!(
        judgement.passed,
        Vec::<String>::new(),
        "these are no failures any more: take them from src/known.rs"
    );
}

#[test]
fn ebpf() {
    conforms(Engine::Ebpf);
}

#[test]
fn nftables() {
    conforms(Engine::Nftables);
}
