//! Proofs that a client holds the private key to which a token is bound: RFC 9449, with ECDSA on the curve P-256.
//! <https://www.rfc-editor.org/rfc/rfc9449>

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use serde_json::json;

use crate::error::Fault;

/// The bytes of a coordinate, and of each half of a signature.
const PART_BYTES: usize = 32;

/// Returns the value of the header `DPoP` for a POST to a URL, signed with a key in PEM form.
///
/// # Errors
/// If the key is no private key of the curve P-256.
pub(crate) fn proof_of_possession(pem: &str, url: &str, now: SystemTime) -> Result<String, Fault> {
    let unusable = || Fault::new("the key is no private key of the curve P-256 in PEM form");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    let key = any_ecdsa_type(&key).map_err(|_| unusable())?;
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).ok_or_else(unusable)?;
    let public = key.public_key().ok_or_else(unusable)?;
    // The structure ends with the point: 4, x, y.
    let point = public.len().checked_sub(2 * PART_BYTES).and_then(|start| public.get(start..)).ok_or_else(unusable)?;
    let (x, y) = point.split_at(PART_BYTES);
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({ "kty": "EC", "x": encode(x), "y": encode(y), "crv": "P-256" });
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let payload = json!({ "jti": uuid(), "htm": "POST", "htu": url, "iat": seconds });
    let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
    let signature = signer.sign(message.as_bytes()).map_err(|_| unusable())?;
    let signature = fixed(&signature).ok_or_else(unusable)?;
    Ok(format!("{message}.{}", encode(&signature)))
}

/// Returns a random UUID of version 4. It is no secret; it must only differ from others.
fn uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Returns the signature of a fixed length that JSON Web Signatures have, from the one in ASN.1 that TLS has:
/// a sequence of two integers.
fn fixed(asn1: &[u8]) -> Option<[u8; 2 * PART_BYTES]> {
    let mut rest = asn1.strip_prefix(&[0x30, u8::try_from(asn1.len().checked_sub(2)?).ok()?])?;
    let mut signature = [0; 2 * PART_BYTES];
    for part in signature.chunks_exact_mut(PART_BYTES) {
        let (&[tag, length], after) = rest.split_first_chunk::<2>()?;
        let number = after.get(..usize::from(length)).filter(|_| tag == 2)?;
        rest = &after[number.len()..];
        // A zero in front keeps the number positive.
        let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        part[PART_BYTES.checked_sub(digits.len())?..].copy_from_slice(digits);
    }
    rest.is_empty().then_some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the example in the SDK's own tests.
    const PEM: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIFDZHUzOG1Pzq+6F0mjMlOSp1syN9LRPBuHMoCFXTcXhoAoGCCqGSM49\n\
        AwEHoUQDQgAE9qhj+KtcdHj1kVgwxWWWw++tqoh7H7UHs7oXh8jBbgF47rrYGC+t\n\
        djiIaHK3dBvvdE7MGj5HsepzLm3Kj91bqA==\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn a_proof_names_its_key_and_the_url_it_is_for() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(489_864);
        let proof = proof_of_possession(PEM, "https://eu-west-1.signin.aws.amazon.com/v1/token", now).unwrap();
        let parts: Vec<Vec<u8>> = proof.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let [header, payload, signature] = &parts[..] else { panic!("{proof}") };
        let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let jwk = &read(header)["jwk"];
        assert_eq!(jwk["x"], "9qhj-KtcdHj1kVgwxWWWw--tqoh7H7UHs7oXh8jBbgE");
        assert_eq!(jwk["y"], "eO662BgvrXY4iGhyt3Qb73ROzBo-R7Hqcy5tyo_dW6g");
        let payload = read(payload);
        assert_eq!(payload["htu"], "https://eu-west-1.signin.aws.amazon.com/v1/token");
        assert_eq!((&payload["htm"], &payload["iat"]), (&"POST".into(), &1_763_510_400.into()));
        let id = payload["jti"].as_str().unwrap();
        assert!(id.len() == 36 && &id[14..15] == "4" && "89ab".contains(&id[19..20]), "{id}");
        assert_eq!(signature.len(), 64);
    }

    #[test]
    fn a_signature_is_as_long_whatever_its_numbers_are() {
        let asn1 = |r: &[u8], s: &[u8]| {
            let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
            let numbers = [&[2, length(r)], r, &[2, length(s)], s].concat();
            [&[0x30, length(&numbers)], &*numbers].concat()
        };
        let long = [&[0], &[0xff; 32][..]].concat();
        let signature = fixed(&asn1(&long, &[7])).unwrap();
        assert_eq!((&signature[..32], &signature[32..63], signature[63]), (&[0xff; 32][..], &[0; 31][..], 7));
        for broken in [&b"\x30\x00"[..], b"\x30\x02\x02\x01", b"\x30\x06\x02\x01\x01\x03\x01\x01", b"", b"\x30"] {
            assert_eq!(fixed(broken), None, "{broken:?}");
        }
        assert_eq!(fixed(&asn1(&[1; 34], &[1])), None);
        assert!(proof_of_possession("", "", SystemTime::now()).is_err());
    }
}
