//! How SCTP's checksum changes with a word of what it covers.
//!
//! CRC-32C is linear: the checksums of two messages of one length differ by the
//! checksum (without initial value and complement) of their difference. That is
//! a word followed by zeros, and each zero byte multiplies by x^8 modulo the
//! polynomial (RFC 9260, appendix A).

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Lengths are in words (RFC 9260, 3.2: chunks are padded), and below 2^12: no
/// packet is longer.
const BITS: usize = 12;

/// x^(32 * 2^n) modulo the polynomial.
const POWERS: [u32; BITS] = {
    let mut powers = [0; BITS];
    // x^8, lowest power in the highest bit; then squared twice.
    let x8 = 1 << (31 - 8);
    let x16 = multiply(x8, x8);
    let mut power = multiply(x16, x16);
    let mut n = 0;
    while n < BITS {
        powers[n] = power;
        power = multiply(power, power);
        n += 1;
    }
    powers
};

const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        // Without branches: the verifier would follow each of them both ways.
        product ^= b & (a >> 31).wrapping_neg();
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit += 1;
    }
    product
}

/// By power, place of four bits, and those bits: their product. The verifier
/// follows each step of a multiplication, and has not the patience for many.
static PRODUCTS: [[[u32; 16]; 8]; BITS] = {
    let mut products = [[[0; 16]; 8]; BITS];
    let mut n = 0;
    while n < BITS {
        let mut place = 0;
        while place < 8 {
            let mut bits = 0;
            while bits < 16 {
                products[n][place][bits] = multiply((bits as u32) << (4 * place), POWERS[n]);
                bits += 1;
            }
            place += 1;
        }
        n += 1;
    }
    products
};

/// Difference of the checksums of two messages that differ in one word, `change`
/// (as read in little-endian order), which has `behind` bytes behind it, a multiple
/// of four and below 16,000.
///
/// The message holds the checksum as this number in little-endian order.
///
/// `product`: [`product`], which the verifier need not walk for each power.
#[inline(always)]
pub(crate) fn difference(change: u32, behind: u32, product: impl Fn(u32, u32) -> u32) -> u32 {
    // The word itself is divided, too.
    let zeros = behind / 4 + 1;
    let mut difference = change;
    let mut n = 0;
    while n < BITS as u32 {
        let product = product(difference, n);
        // Without a branch, for the verifier's sake.
        let set = (zeros >> n & 1).wrapping_neg();
        difference = (product & set) | (difference & !set);
        n += 1;
    }
    difference
}

/// `factor` times one of [`POWERS`].
#[inline(always)]
pub fn product(factor: u32, power: u32) -> u32 {
    let Some(products) = PRODUCTS.get(power as usize) else {
        return 0;
    };
    let mut product = 0;
    let mut place = 0;
    while place < 8 {
        product ^= products[place][(factor >> (4 * place) & 15) as usize];
        place += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn it_is_crc32c() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    proptest! {
        #[test]
        fn a_changed_word_changes_the_sum_by_the_difference(
            words in prop::collection::vec(any::<[u8; 4]>(), 1..3000),
            new in any::<[u8; 4]>(),
        ) {
            let mut bytes = words.concat();
            let before = crc32c(&bytes);
            let old: [u8; 4] = bytes[..4].try_into().unwrap();
            bytes[..4].copy_from_slice(&new);
            let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
            let behind = bytes.len() as u32 - 4;
            prop_assert_eq!(crc32c(&bytes), before ^ difference(change, behind, product));
        }
    }
}
