//! Programs on sockets of the node's cgroup: services are translated before
//! there is a packet.

mod connect;
mod getpeername;
mod recvmsg;
mod sendmsg;
mod tcp;

use core::ffi::c_void;
use core::ptr::{self, read_volatile, write_volatile};

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_addr};
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, bpf_sk_storage_get,
};
use aya_ebpf::programs::SockAddrContext;
use ripstop_abi::{
    Address, Backend, Caller, DropReason, Port, ReverseKey, ServiceAddress, Services, SocketState,
};

use crate::maps::{SOCKETS, config, count};
use crate::services::Kernel;

const ECONNREFUSED: i32 = 111;
const ENOMEM: i32 = 12;

/// What the hook's caller does; nothing else may be returned.
#[must_use]
#[derive(Clone, Copy)]
enum Exit {
    Proceed,
    /// The system call fails, at once.
    Refuse(DropReason),
}

impl Exit {
    #[inline(always)]
    fn code(self) -> i32 {
        match self {
            Self::Proceed => 1,
            Self::Refuse(reason) => {
                count(reason as u32);
                let errno = match reason {
                    DropReason::SocketState => ENOMEM,
                    _ => ECONNREFUSED,
                };
                // A constant for the verifier: a kernel without the helper never
                // sees the call.
                if config().says_why != 0 {
                    // SAFETY: the helper takes any error number.
                    unsafe { bpf_set_retval(-errno) };
                }
                0
            }
        }
    }
}

/// The address family that a hook is for: the fields of the context that its
/// address is in.
trait Family {
    /// # Safety
    /// The context is one of this family's hooks.
    unsafe fn address(context: *mut bpf_sock_addr) -> Address;
    /// # Safety
    /// Likewise.
    unsafe fn set_address(context: *mut bpf_sock_addr, address: &Address);
}

struct V4;
struct V6;

// Volatile throughout: the verifier allows accesses of whole fields only, and
// the compiler would join or split them.
impl Family for V4 {
    #[inline(always)]
    unsafe fn address(context: *mut bpf_sock_addr) -> Address {
        // SAFETY: by the caller.
        Address::v4(unsafe { read_volatile(&raw const (*context).user_ip4) })
    }

    #[inline(always)]
    unsafe fn set_address(context: *mut bpf_sock_addr, address: &Address) {
        // SAFETY: by the caller.
        unsafe { write_volatile(&raw mut (*context).user_ip4, address.v4_word()) };
    }
}

impl Family for V6 {
    #[inline(always)]
    unsafe fn address(context: *mut bpf_sock_addr) -> Address {
        // SAFETY: by the caller.
        unsafe {
            let words = &raw const (*context).user_ip6;
            Address::v6([
                read_volatile(&raw const (*words)[0]),
                read_volatile(&raw const (*words)[1]),
                read_volatile(&raw const (*words)[2]),
                read_volatile(&raw const (*words)[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn set_address(context: *mut bpf_sock_addr, address: &Address) {
        let [a, b, c, d] = address.words();
        // SAFETY: by the caller.
        unsafe {
            let words = &raw mut (*context).user_ip6;
            write_volatile(&raw mut (*words)[0], a);
            write_volatile(&raw mut (*words)[1], b);
            write_volatile(&raw mut (*words)[2], c);
            write_volatile(&raw mut (*words)[3], d);
        }
    }
}

/// A socket with the address that the system call is about.
struct Socket<F> {
    context: *mut bpf_sock_addr,
    family: core::marker::PhantomData<F>,
}

impl<F: Family> Socket<F> {
    #[inline(always)]
    fn new(context: &SockAddrContext) -> Self {
        Self {
            context: context.sock_addr,
            family: core::marker::PhantomData,
        }
    }

    /// Address and port of the other end.
    #[inline(always)]
    fn peer(&self) -> (Address, Port) {
        // SAFETY: the hooks name their own family; the port is in the low half
        // of its word.
        unsafe {
            let port = read_volatile(&raw const (*self.context).user_port) as u16;
            (F::address(self.context), Port::from_network(port))
        }
    }

    #[inline(always)]
    fn set_peer(&self, (address, port): (Address, Port)) {
        // SAFETY: as above.
        unsafe {
            F::set_address(self.context, &address);
            write_volatile(&raw mut (*self.context).user_port, port.network().into());
        }
    }

    /// The port that the socket is connected to.
    #[inline(always)]
    fn connected_to(&self) -> Port {
        // SAFETY: the context's socket lives longer than the program runs.
        unsafe {
            let socket = (*self.context).__bindgen_anon_1.sk;
            Port::from_network(read_volatile(&raw const (*socket).dst_port))
        }
    }

    #[inline(always)]
    fn destination(&self) -> ServiceAddress {
        let (address, port) = self.peer();
        // SAFETY: the context is valid for as long as the program runs.
        let protocol = unsafe { read_volatile(&raw const (*self.context).protocol) };
        ServiceAddress::new(address, port, protocol as u8)
    }

    #[inline(always)]
    fn cookie(&self) -> [u32; 2] {
        // SAFETY: the context is valid for as long as the program runs.
        let cookie = unsafe { bpf_get_socket_cookie(self.context.cast()) };
        [cookie as u32, (cookie >> 32) as u32]
    }

    /// The key of a backend of this socket's.
    #[inline(always)]
    fn reverse(&self, backend: &Backend) -> ReverseKey {
        ReverseKey {
            cookie: self.cookie(),
            backend: *backend,
        }
    }

    /// What the socket remembers.
    #[inline(always)]
    fn state(&self) -> Option<&mut SocketState> {
        self.storage(ptr::null_mut(), 0)
    }

    /// # Errors
    /// If there is no memory for it.
    #[inline(always)]
    fn remember(&self, state: &mut SocketState) -> Result<(), DropReason> {
        let remembered = self
            .storage(
                ptr::from_mut(state).cast(),
                BPF_SK_STORAGE_GET_F_CREATE.into(),
            )
            .ok_or(DropReason::SocketState)?;
        // SAFETY: two places of the same type. (An assignment becomes a call.)
        unsafe { ptr::copy_nonoverlapping(state, remembered, 1) };
        Ok(())
    }

    #[inline(always)]
    fn storage(&self, initial: *mut c_void, flags: u64) -> Option<&mut SocketState> {
        // SAFETY: the context's socket and storage live longer than the program
        // runs, and the socket is locked while it does.
        unsafe {
            let socket = (*self.context).__bindgen_anon_1.sk;
            bpf_sk_storage_get(SOCKETS.0.get().cast(), socket.cast(), initial, flags)
                .cast::<SocketState>()
                .as_mut()
        }
    }
}

impl<F> Caller for Socket<F> {
    #[inline(always)]
    fn in_node_netns(&self) -> bool {
        self.netns() == config().node_netns
    }

    #[inline(always)]
    fn picked(&self, _: &impl Services, address: [u64; 2], port: u64, before: u64) -> u64 {
        picked(self.context, address[0], address[1], port, before)
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }
}

/// [`ripstop_abi::picked`]. A function that the verifier walks through once, as those
/// of `packet/apart.rs`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn picked(
    context: *mut bpf_sock_addr,
    first: u64,
    second: u64,
    port: u64,
    before: u64,
) -> u64 {
    // Nothing that depends on the family is asked of it.
    let socket = Socket::<V4> {
        context,
        family: core::marker::PhantomData,
    };
    ripstop_abi::picked(&Kernel, &socket, [first, second], port, before)
}
