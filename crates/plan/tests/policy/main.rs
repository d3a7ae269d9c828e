//! Rows of network policies against a reference that is written from the API's
//! documentation.

mod harness;
mod reference;
mod truth;
