//! Digests: parsing, hashing, chains.

use proptest::prelude::*;
use zuwai_oci::{ChainId, DiffId, Digest, Hasher};

#[test]
fn digests_are_checked() {
    let hex64 = "0123456789abcdef".repeat(4);
    let hex128 = "0123456789abcdef".repeat(8);
    for good in [format!("sha256:{hex64}"), format!("sha512:{hex128}")] {
        let digest = Digest::parse(&good).unwrap();
        assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), good);
        assert_eq!((digest.to_string(), digest.short()), (good.clone(), "0123456789ab"));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{good}\"")).unwrap(), digest);
    }
    for bad in [
        String::new(),
        ":".to_owned(),
        "sha256:".to_owned(),
        hex64.clone(),
        format!("sha256:{}", &hex64[1..]),
        format!("sha256:{hex64}0"),
        format!("sha256:{hex128}"),
        format!("sha512:{hex64}"),
        format!("sha256:{}", hex64.to_uppercase()),
        format!("SHA256:{hex64}"),
        format!("md5:{}", &hex64[..32]),
        "sha256:../../../../../../../../../../../../../../../../../../../../etc".to_owned(),
        format!("sha256: {}", &hex64[1..]),
        format!("sha256:{}\u{e9}", &hex64[2..]),
        format!("sha256:{hex64}\n"),
        format!("sha256:sha256:{}", &hex64[7..]),
    ] {
        assert!(Digest::parse(&bad).is_err(), "{bad:?}");
        assert!(serde_json::from_value::<Digest>(bad.into()).is_err());
    }
    assert!(Digest::parse(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 500);
}

/// FIPS 180-2, «abc».
#[test]
fn hashes_are_the_published_ones() {
    let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    assert_eq!(Digest::of(b"abc").as_str(), sha256);
    for expected in [sha256, sha512] {
        let mut hasher = Hasher::like(&Digest::parse(expected).unwrap());
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.size_bytes(), 3);
        assert_eq!(hasher.finish().as_str(), expected);
    }
}

/// image-spec `config.md`: `ChainID(L₀|L₁) = SHA256(ChainID(L₀) + " " + DiffID(L₁))`.
#[test]
fn chains_follow_the_specification() {
    let layer = |text: &str| DiffId(Digest::of(text.as_bytes()));
    assert_eq!(ChainId::of(&[]), None);
    assert_eq!(ChainId::of(&[layer("a")]), Some(ChainId(Digest::of(b"a"))));
    let two = Digest::of(format!("{} {}", Digest::of(b"a"), Digest::of(b"b")).as_bytes());
    assert_eq!(ChainId::of(&[layer("a"), layer("b")]), Some(ChainId(two.clone())));
    let three = Digest::of(format!("{two} {}", Digest::of(b"a")).as_bytes());
    assert_eq!(ChainId::of(&[layer("a"), layer("b"), layer("a")]), Some(ChainId(three)));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        if let Ok(digest) = Digest::parse(&text) {
            prop_assert_eq!(digest.as_str(), text);
        }
    }

    #[test]
    fn pieces_hash_like_the_whole(bytes in any::<Vec<u8>>(), cut in any::<proptest::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        let mut hasher = Hasher::new();
        hasher.update(&bytes[..cut]);
        hasher.update(&bytes[cut..]);
        prop_assert_eq!(hasher.finish(), Digest::of(&bytes));
    }
}
