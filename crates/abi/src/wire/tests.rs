use super::*;

/// The sum of a whole header, for comparison (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]])))
        .sum();
    replace_sum(!0, sum, 0)
}

fn header(ttl: u8, id: u16, destination: [u8; 4]) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[0] = 0x45;
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[8] = ttl;
    bytes[16..20].copy_from_slice(&destination);
    let sum = checksum(&bytes).to_ne_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes
}

fn view(bytes: &mut [u8; 20]) -> &mut Ipv4 {
    // SAFETY: the type is a header of that size.
    unsafe { &mut *bytes.as_mut_ptr().cast::<Ipv4>() }
}

#[test]
fn checksums_stay_right() {
    for id in 0..=u16::MAX {
        let mut bytes = header(64, id, [10, 0, 0, 1]);
        view(&mut bytes).decrement_hops();
        assert_eq!(bytes[8], 63);
        assert!(matches!(checksum(&bytes), 0), "id {id} after a hop");
        view(&mut bytes).set_destination(&Address::v4(id.into()));
        assert!(matches!(checksum(&bytes), 0), "id {id} after translation");
    }
}

#[test]
fn options_and_last_hops_are_not_ours() {
    let mut bytes = header(2, 1, [10, 0, 0, 1]);
    assert!(view(&mut bytes).is_routable());
    bytes[0] = 0x46;
    assert!(!view(&mut bytes).is_routable());
    assert!(!view(&mut header(1, 1, [10, 0, 0, 1])).is_routable());
    assert!(!view(&mut header(0, 1, [10, 0, 0, 1])).is_routable());
}

#[test]
fn fragments_have_no_ports() {
    for (field, plain) in [(0, true), (0x4000, true), (0x2000, false), (0x0001, false)] {
        let mut bytes = header(64, 1, [10, 0, 0, 1]);
        bytes[6..8].copy_from_slice(&u16::to_be_bytes(field));
        assert_eq!(view(&mut bytes).transport().is_some(), plain, "{field:#x}");
    }
}
