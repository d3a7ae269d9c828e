//! The whole suite, under every engine. `cargo xtask conformance` prints the
//! matrix; here it is printed if a cell failed.

use ripstop_conformance::engine::Engine;
use ripstop_conformance::options::{Options, Output};
use ripstop_conformance::suite;

fn conforms(engine: Engine) {
    let options = Options {
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
    let matrix = suite::run(&options, client).unwrap();
    assert_eq!(matrix.failures(), 0, "\n{}", matrix.text());
}

#[test]
fn ebpf() {
    conforms(Engine::Ebpf);
}

#[test]
fn nftables() {
    conforms(Engine::Nftables);
}
