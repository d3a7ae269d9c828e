//! One behaviour, every engine.

/// Each of these functions, generic over the engine, as a test under each.
macro_rules! in_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod ebpf {
            $(#[test]
            fn $test() {
                super::$test::<ripstop_datapath::ebpf::EbpfEngine>();
            })+
        }
        mod nftables {
            $(#[test]
            fn $test() {
                super::$test::<ripstop_datapath::nftables::NftEngine>();
            })+
        }
    };
}
