//! The kernel programs. A hook a file; what they decide is in `ripstop-abi`.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic addition, see `services::add`")]

mod maps;
mod packet;
mod services;
mod socket;

/// No helper that is used here is reserved to programs under the GPL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an endless loop, so a program that could panic does
    // not load.
    loop {}
}
