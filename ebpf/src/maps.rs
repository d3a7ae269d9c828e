//! The tables, as `ripstop_abi::names` calls them.
//!
//! The numbers of rows are the loader's to set.

use core::cell::UnsafeCell;
use core::ptr::read_volatile;

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_def};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use ripstop_abi::{
    Address, Affinity, AffinityKey, BackendKey, BackendRow, Config, Connection, ConnectionKey,
    DenialKey, DenialRow, Endpoint, Flow, FlowKey, FlowPorts, Frontend, Gap, Judgement, Led,
    MaglevRow, PairKey, PairRow, Part, PartKey, Place, Policing, PolicyPod, PolicyState, PortNode,
    ReverseKey, Route, ServiceAddress, ShareKey, Slots, SlotsKey, SocketState, Uplink, Work,
};

/// A set of backends and an address: `ripstop_abi::SourceKey` after its length.
pub(crate) type Source = [u32; 5];

#[map(name = "endpoints")]
pub(crate) static ENDPOINTS: HashMap<Address, Endpoint> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "frontends")]
pub(crate) static FRONTENDS: HashMap<ServiceAddress, Frontend> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "slots")]
pub(crate) static SLOTS: HashMap<SlotsKey, Slots> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "maglev")]
pub(crate) static MAGLEV: HashMap<SlotsKey, MaglevRow> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "backends")]
pub(crate) static BACKENDS: HashMap<BackendKey, BackendRow> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "affinity")]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(1, 0);
#[map(name = "sources")]
pub(crate) static SOURCES: LpmTrie<Source, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "routes")]
pub(crate) static ROUTES: LpmTrie<Address, Route> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "ranges")]
pub(crate) static RANGES: LpmTrie<Address, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "uplinks")]
pub(crate) static UPLINKS: HashMap<u32, Uplink> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "flows")]
pub(crate) static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "flow_shares")]
pub(crate) static FLOW_SHARES: HashMap<u32, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "names")]
pub(crate) static NAMES: LruHashMap<ReverseKey, Led> = LruHashMap::with_max_entries(1, 0);
#[map(name = "reverse")]
pub(crate) static REVERSE: LruHashMap<ReverseKey, ServiceAddress> =
    LruHashMap::with_max_entries(1, 0);
#[map(name = "connected")]
pub(crate) static CONNECTED: LruHashMap<ReverseKey, ServiceAddress> =
    LruHashMap::with_max_entries(1, 0);
#[map(name = "policy_pods")]
pub(crate) static POLICY_PODS: HashMap<Address, PolicyPod> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "policy_classes")]
pub(crate) static POLICY_CLASSES: LpmTrie<Address, u64> =
    LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "policy_pairs")]
pub(crate) static POLICY_PAIRS: HashMap<PairKey, PairRow> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "policy_ports")]
pub(crate) static POLICY_PORTS: HashMap<u32, PortNode> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "policy_state")]
pub(crate) static POLICY_STATE: Array<PolicyState> = Array::with_max_entries(1, 0);
#[map(name = "own_addresses")]
pub(crate) static OWN_ADDRESSES: HashMap<Address, u32> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "connections")]
pub(crate) static CONNECTIONS: HashMap<ConnectionKey, Connection> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "places")]
pub(crate) static PLACES: Array<Place> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "shares")]
pub(crate) static SHARES: HashMap<ShareKey, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "parts")]
pub(crate) static PARTS: LruHashMap<PartKey, Part> = LruHashMap::with_max_entries(1, 0);
#[map(name = "denials")]
pub(crate) static DENIALS: HashMap<DenialKey, DenialRow> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map(name = "denials_lost")]
pub(crate) static DENIALS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "judgements")]
pub(crate) static JUDGEMENTS: PerCpuArray<Judgement> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "policing")]
pub(crate) static POLICING: PerCpuArray<Policing> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "work")]
pub(crate) static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "clock")]
pub(crate) static CLOCK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
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
static CONFIG: Global<Config> = Global::new(Config {
    node_netns: 0,
    ports: FlowPorts::without_gaps(0, 0),
    own_ports: FlowPorts::without_gaps(0, 0),
    says_why: 0,
    reserved: 0,
});

#[inline(always)]
pub(crate) fn config() -> Config {
    CONFIG.load()
}

/// Ports at that place of [`Config`], word by word: the whole would be copied to the
/// stack.
#[inline(always)]
pub(crate) fn ports(at: usize) -> FlowPorts {
    // SAFETY: constants that are there, of which the compiler is not to know the values
    // (`Global` is transparent, and loads the whole likewise).
    unsafe {
        let ports = (&raw const CONFIG).byte_add(at).cast::<FlowPorts>();
        let gap = |gap: *const Gap| Gap {
            first: read_volatile(&raw const (*gap).first),
            count: read_volatile(&raw const (*gap).count),
        };
        FlowPorts {
            first: read_volatile(&raw const (*ports).first),
            count: read_volatile(&raw const (*ports).count),
            gaps: [
                gap(&raw const (*ports).gaps[0]),
                gap(&raw const (*ports).gaps[1]),
                gap(&raw const (*ports).gaps[2]),
            ],
        }
    }
}

/// Counts one packet or connection that goes no further, by the number of the
/// reason.
#[inline(always)]
pub(crate) fn count(reason: u32) {
    if let Some(counter) = DROPS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own counter, and programs do not preempt each other
        // on it for longer than it takes to lose a count.
        unsafe { *counter += 1 };
    }
}
