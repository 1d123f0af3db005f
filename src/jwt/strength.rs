//! Whether an RSA key is strong enough to be believed.

use super::jwk::Unusable;

/// The modulus without leading zeros, if it has 2048 to 8192 bits, the exponent is one that RSA may
/// have, and the key is not of the kind that falls to ROCA.
///
/// Below the floor a key can be factored; past the ceiling each forged signature costs us too much.
pub(crate) fn check_rsa<'a>(modulus: &'a [u8], exponent: &[u8]) -> Result<&'a [u8], Unusable> {
    let modulus = significant(modulus);
    let bits =
        modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if bits < MIN_BITS {
        return Err("its RSA modulus is shorter than 2048 bits");
    }
    if bits > MAX_BITS {
        return Err("its RSA modulus is longer than 8192 bits");
    }
    if modulus.last().is_none_or(|last| last % 2 == 0) {
        return Err("its RSA modulus is even");
    }
    let exponent = significant(exponent);
    let value = exponent.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if exponent.len() > 4 || value < 3 || value % 2 == 0 {
        return Err("its RSA exponent is unusable");
    }
    if has_roca_fingerprint(modulus) {
        return Err("its RSA key was made by a broken generator (CVE-2017-15361)");
    }
    Ok(modulus)
}

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The broken generator makes primes `k * M + (65537^a mod M)`, where `M` is the product of the
/// first primes, 39 of them or more. So its moduli are powers of 65537 modulo each of those primes.
/// Of other moduli, fewer than one in a hundred million is.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| {
        let residue =
            modulus.iter().fold(0, |residue, byte| (residue * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * 65537 % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

const MIN_BITS: usize = 2048;
const MAX_BITS: usize = 8192;

/// The first 39 primes but 2, whose power says nothing of an odd number.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

#[cfg(test)]
mod tests {
    use super::*;

    const F4: &[u8] = &[1, 0, 1];

    /// 65537 to the power of `exponent`, big-endian: a power of 65537 modulo everything.
    fn power_of_65537(exponent: usize) -> Vec<u8> {
        let mut number = vec![1_u8];
        for _ in 0..exponent {
            let mut product = vec![0_u8; number.len() + 2];
            let mut carry = 0_u32;
            for (at, byte) in product.iter_mut().enumerate() {
                let low = number.get(at).copied().unwrap_or(0);
                let high = at.checked_sub(2).and_then(|at| number.get(at)).copied().unwrap_or(0);
                carry += u32::from(low) + u32::from(high);
                *byte = carry as u8;
                carry >>= 8;
            }
            number = product;
        }
        number.reverse();
        significant(&number).to_vec()
    }

    #[test]
    fn roca_keys_are_found_and_others_are_not() {
        let broken = power_of_65537(130);
        assert!(check_rsa(&broken, F4).unwrap_err().contains("CVE-2017-15361"));
        for step in [2, 4, 6, 8] {
            let mut sound = broken.clone();
            *sound.last_mut().unwrap() += step;
            assert_eq!(check_rsa(&sound, F4), Ok(&sound[..]));
        }
    }

    #[test]
    fn moduli_have_a_floor_and_a_ceiling_in_bits() {
        let odd = |bits: usize| {
            let mut number = vec![0xb5_u8; bits.div_ceil(8)];
            number[0] = 1 << ((bits - 1) % 8);
            number
        };
        for bits in [512, 1024, 2047, 8193] {
            assert!(check_rsa(&odd(bits), F4).is_err(), "{bits}");
        }
        for bits in [2048, 2049, 3072, 8192] {
            assert!(check_rsa(&odd(bits), F4).is_ok(), "{bits}");
        }
        let padded = [vec![0; 300], odd(1024)].concat();
        assert!(check_rsa(&padded, F4).is_err());
        assert!(check_rsa(&[], F4).is_err());
        for exponent in [&[][..], &[0], &[1], &[4], &[1, 0, 0, 0, 1]] {
            assert!(check_rsa(&odd(2048), exponent).is_err(), "{exponent:?}");
        }
        assert!(check_rsa(&odd(2048), &[0, 3]).is_ok());
    }
}
