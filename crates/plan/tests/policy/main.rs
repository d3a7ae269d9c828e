//! Rows of network policies against a reference that is written from the API's
//! documentation.

mod cases;
mod harness;
mod kernel;
mod reference;
mod truth;
