//! The tables, as `ripstop_abi::names` calls them.
//!
//! The numbers of rows are the loader's to set.

use core::cell::UnsafeCell;

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_map_def};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray};
use ripstop_abi::{
    Address, Backend, BackendKey, Config, DropReason, Endpoint, Flow, FlowKey, Frontend,
    HostPortTarget, ReverseKey, Route, ServiceAddress, SocketState,
};

#[map(name = "endpoints")]
pub(crate) static ENDPOINTS: HashMap<Address, Endpoint> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "frontends")]
pub(crate) static FRONTENDS: HashMap<ServiceAddress, Frontend> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "backends")]
pub(crate) static BACKENDS: HashMap<BackendKey, Backend> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "routes")]
pub(crate) static ROUTES: LpmTrie<Address, Route> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "host_ports")]
pub(crate) static HOST_PORTS: HashMap<ServiceAddress, HostPortTarget> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "flows")]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(1, 0);
#[map(name = "reverse")]
pub(crate) static REVERSE: LruHashMap<ReverseKey, ServiceAddress> =
    LruHashMap::with_max_entries(1, 0);
#[map(name = "drops")]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Storage that ends with its socket. By hand: aya-ebpf has it only for objects
/// with type information, which ours is built without (the loader supplies the
/// few bytes that the kernel wants).
#[map(name = "sockets")]
pub(crate) static SOCKETS: SocketStorage = SocketStorage(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_SK_STORAGE,
    key_size: size_of::<u32>() as u32,
    value_size: size_of::<SocketState>() as u32,
    max_entries: 0,
    map_flags: BPF_F_NO_PREALLOC,
    id: 0,
    pinning: 0,
}));

#[repr(transparent)]
pub(crate) struct SocketStorage(pub(crate) UnsafeCell<bpf_map_def>);

// SAFETY: never read or written by programs: the loader replaces its address by
// that of the kernel's map.
unsafe impl Sync for SocketStorage {}

/// Set by the loader.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config { node_netns: 0 });

#[inline(always)]
pub(crate) fn config() -> Config {
    CONFIG.load()
}

/// Counts one packet or connection that goes no further.
#[inline(always)]
pub(crate) fn count(reason: DropReason) {
    if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own counter, and programs do not preempt each other
        // on it for longer than it takes to lose a count.
        unsafe { *counter += 1 };
    }
}
