//! Ceremonies with an authenticator in software, those that the specification prints, and what is wrong with others.

mod software;

use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ciborium::Value as Cbor;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use software::{
    BACKED_UP, BACKUP_ELIGIBLE, CHALLENGE, CREDENTIAL, EXTENSIONS, ORIGIN, PARTY, PRESENT_AND_VERIFIED, Said, Software,
    base64, cbor,
};

/// §16; the specification's code examples are under the W3C Software and Document License.
const VECTORS: &str = include_str!("tests/vectors.json");

fn registered(response: &Value) -> Result<Credential, Fault> {
    let origins = [ORIGIN.to_owned(), "android:apk-key-hash:abc".to_owned()];
    register(response, CHALLENGE, &RelyingParty { id: PARTY, origins: &origins }, UserVerification::Required)
}

/// With a credential that was registered with no backup and five uses.
fn authenticated(response: &Value, software: &Software) -> Result<Assertion, Fault> {
    authenticated_by(response, &Known { id: &software.id, public_key: &software.public_key(), ..KNOWN })
}

const KNOWN: Known<'static> = Known { id: &[], public_key: &[], sign_count: 5, backup_eligible: false };

fn authenticated_by(response: &Value, known: &Known<'_>) -> Result<Assertion, Fault> {
    let party = RelyingParty { id: PARTY, origins: &[ORIGIN.to_owned()] };
    authenticate(response, CHALLENGE, &party, UserVerification::Required, known)
}

fn sixth_use(software: &Software) -> Said {
    Said { count: 6, ..software.asserts() }
}

fn map(entries: Vec<(&str, Cbor)>) -> Cbor {
    Cbor::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

#[test]
fn keys_of_all_kinds_register_and_sign_in() {
    for software in [Software::p256(), Software::ed25519(), Software::p384(), Software::rsa()] {
        assert!(ALGORITHMS.contains(&software.algorithm()));
        for format in ["none", "packed"] {
            let said = Said { format, count: 5, ..software.creates() };
            let credential = registered(&software.registration(&said)).unwrap();
            let expected = Credential {
                id: software.id.clone(),
                public_key: software.public_key(),
                aaguid: [7; 16],
                sign_count: 5,
                backup_eligible: false,
                backed_up: false,
                user_verified: true,
                transports: vec!["internal".into(), "hybrid".into()],
                attestation_format: format.into(),
            };
            assert_eq!(credential, expected);
        }
        let response = software.assertion(&sixth_use(&software));
        assert_eq!(credential_id(&response).as_deref(), Ok(&software.id[..]));
        let expected =
            Assertion { sign_count: 6, backed_up: false, user_verified: true, user_handle: Some(b"the user".to_vec()) };
        assert_eq!(authenticated(&response, &software), Ok(expected));
    }
}

#[test]
fn the_ceremonies_of_the_specification_are_verified() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let party = RelyingParty { id: "example.org", origins: &["https://example.org".to_owned()] };
    let mut verified = 0;
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let challenge = |ceremony: &str| vector[ceremony]["challenge"].as_str().unwrap().to_owned();
        let credential =
            register(&vector["create"]["response"], &challenge("create"), &party, UserVerification::Preferred);
        let fault = match name {
            name if name.contains("crossOrigin") || name.contains("topOrigin") => Some(Fault::CrossOrigin),
            name if name.contains("ES512") || name.contains("Ed448") => Some(Fault::KeyKind),
            _ => None,
        };
        let Ok(credential) = credential else {
            assert_eq!(credential.err(), fault, "{name}");
            continue;
        };
        let known = Known {
            id: &credential.id,
            public_key: &credential.public_key,
            sign_count: credential.sign_count,
            backup_eligible: credential.backup_eligible,
        };
        let response = &vector["get"]["response"];
        let assertion = authenticate(response, &challenge("get"), &party, UserVerification::Preferred, &known);
        assert_eq!((assertion.err(), fault), (None, None), "{name}");
        verified += 1;
    }
    assert_eq!(verified, 11);
}

#[test]
fn a_registration_is_refused_for_what_was_said() {
    type Change = fn(&mut Said);
    let rows: Vec<(&str, Change, Fault)> = vec![
        ("type", |said| said.client_data["type"] = "webauthn.get".into(), Fault::Ceremony("webauthn.get".into())),
        ("challenge", |said| said.client_data["challenge"] = "Y2hhbGxlbmdm".into(), Fault::Challenge),
        ("padded challenge", |said| said.client_data["challenge"] = "Y2hhbGxlbmdl=".into(), Fault::Challenge),
        (
            "origin",
            |said| said.client_data["origin"] = "https://app.example.com.evil.com".into(),
            Fault::Origin("https://app.example.com.evil.com".into()),
        ),
        (
            "a domain above",
            |said| said.client_data["origin"] = "https://example.com".into(),
            Fault::Origin("https://example.com".into()),
        ),
        ("cross origin", |said| said.client_data["crossOrigin"] = true.into(), Fault::CrossOrigin),
        ("top origin", |said| said.client_data["topOrigin"] = ORIGIN.into(), Fault::CrossOrigin),
        ("odd cross origin", |said| said.client_data["crossOrigin"] = "true".into(), Fault::ClientData),
        ("no origin", |said| said.client_data["origin"] = Value::Null, Fault::ClientData),
        ("no JSON", |said| said.raw_client_data = Some(b"{".to_vec()), Fault::ClientData),
        (
            "two challenges",
            |said| {
                let text = said.client_data.to_string();
                said.raw_client_data = Some(text.replacen('{', r#"{"challenge":"x","#, 1).into_bytes());
            },
            Fault::ClientData,
        ),
        ("relying party", |said| said.party = "app.example.com", Fault::RelyingParty),
        ("nobody there", |said| said.flags &= !1, Fault::UserAbsent),
        ("nobody verified", |said| said.flags &= !4, Fault::UserUnverified),
        ("backed up, not eligible", |said| said.flags |= BACKED_UP, Fault::BackupState),
        ("no credential", |said| said.flags &= !CREDENTIAL, Fault::NoCredential),
        ("another id", |said| said.id = b"another".to_vec(), Fault::DifferentIds),
        ("long id", |said| said.id = vec![1; 1024], Fault::LongId),
        ("trailing bytes", |said| said.after = vec![0], Fault::AuthenticatorData),
        ("no extensions", |said| said.flags |= EXTENSIONS, Fault::AuthenticatorData),
        (
            "extensions that are no map",
            |said| {
                said.flags |= EXTENSIONS;
                said.after = vec![0x80];
            },
            Fault::AuthenticatorData,
        ),
        (
            "bytes after extensions",
            |said| {
                said.flags |= EXTENSIONS;
                said.after = vec![0xa0, 0xa0];
            },
            Fault::AuthenticatorData,
        ),
        ("key that is no map", |said| said.key = vec![0x80], Fault::AuthenticatorData),
        (
            "none with a statement",
            |said| said.statement = Some(map(vec![("alg", (-7).into())])),
            Fault::AttestationStatement,
        ),
        ("statement that is no map", |said| said.statement = Some(Cbor::Null), Fault::AttestationObject),
        ("no format", |said| said.format = "", Fault::AttestationObject),
        ("long format", |said| said.format = "a-format-of-more-than-thirty-two-letters", Fault::AttestationObject),
        (
            "self attestation without a signature",
            |said| {
                said.format = "packed";
                said.statement = Some(map(vec![("alg", (-7).into())]));
            },
            Fault::AttestationStatement,
        ),
        (
            "self attestation with a bad signature",
            |said| {
                said.format = "packed";
                said.statement = Some(map(vec![("alg", (-7).into()), ("sig", vec![1, 2, 3].into())]));
            },
            Fault::Signature,
        ),
        (
            "self attestation of another key",
            |said| {
                said.format = "packed";
                said.key = Software::p256().public_key();
            },
            Fault::Signature,
        ),
        (
            "self attestation of another algorithm",
            |said| {
                said.format = "packed";
                said.key = Software::p384().public_key();
            },
            Fault::AttestationStatement,
        ),
    ];
    let software = Software::p256();
    for (name, change, fault) in rows {
        let mut said = software.creates();
        change(&mut said);
        assert_eq!(registered(&software.registration(&said)), Err(fault), "{name}");
    }
    // Nobody has signed it: the policy is "none".
    let said = Said { key: Software::p384().public_key(), ..software.creates() };
    assert!(registered(&software.registration(&said)).is_ok());
}

#[test]
fn keys_that_verify_nothing_are_refused() {
    type Change = fn(&mut Vec<(i64, Cbor)>);
    fn set(labels: &mut [(i64, Cbor)], label: i64, value: impl Into<Cbor>) {
        labels.iter_mut().find(|(known, _)| *known == label).unwrap().1 = value.into();
    }
    let (p256, ed25519, rsa) = (Software::p256(), Software::ed25519(), Software::rsa());
    let rows: Vec<(&str, &Software, Change, Fault)> = vec![
        ("kind", &p256, |labels| set(labels, 1, 1), Fault::KeyKind),
        ("algorithm", &p256, |labels| set(labels, 3, -8), Fault::KeyKind),
        ("unknown algorithm", &p256, |labels| set(labels, 3, -65535), Fault::KeyKind),
        ("huge algorithm", &p256, |labels| set(labels, 3, u64::MAX), Fault::KeyKind),
        ("no algorithm", &p256, |labels| labels.retain(|(label, _)| *label != 3), Fault::KeyKind),
        ("two algorithms", &p256, |labels| labels.push((3, (-7).into())), Fault::KeyKind),
        ("curve", &p256, |labels| set(labels, -1, 2), Fault::KeyKind),
        ("short coordinate", &p256, |labels| set(labels, -2, vec![1; 31]), Fault::Key),
        ("long coordinate", &p256, |labels| set(labels, -2, vec![1; 33]), Fault::Key),
        ("not on the curve", &p256, |labels| set(labels, -2, vec![1; 32]), Fault::Key),
        ("compressed", &p256, |labels| set(labels, -3, true), Fault::Key),
        ("no coordinate", &p256, |labels| labels.retain(|(label, _)| *label != -3), Fault::Key),
        ("text for bytes", &ed25519, |labels| set(labels, -2, "x"), Fault::Key),
        ("short Ed25519", &ed25519, |labels| set(labels, -2, vec![1; 31]), Fault::Key),
        ("weak RSA", &rsa, |labels| set(labels, -1, vec![255; 128]), Fault::Key),
        ("almost RSA 2048", &rsa, |labels| set(labels, -1, vec![127; 256]), Fault::Key),
        ("huge RSA", &rsa, |labels| set(labels, -1, vec![255; 1025]), Fault::Key),
        ("modulus with zeros", &rsa, |labels| set(labels, -1, vec![0; 256]), Fault::Key),
        ("no exponent", &rsa, |labels| set(labels, -2, vec![0; 0]), Fault::Key),
    ];
    for (name, software, change, fault) in rows {
        let mut labels = software.labels();
        change(&mut labels);
        let key = cbor(&Cbor::Map(labels.into_iter().map(|(label, value)| (label.into(), value)).collect()));
        let said = Said { key: key.clone(), ..software.creates() };
        assert_eq!(registered(&software.registration(&said)), Err(fault.clone()), "{name}");
        let known = Known { id: &software.id, public_key: &key, ..KNOWN };
        assert_eq!(authenticated_by(&software.assertion(&sixth_use(software)), &known), Err(fault), "{name}");
    }
    let trailing = [p256.public_key(), vec![0]].concat();
    let known = Known { id: &p256.id, public_key: &trailing, ..KNOWN };
    assert_eq!(authenticated_by(&p256.assertion(&sixth_use(&p256)), &known), Err(Fault::Key));
}

#[test]
fn an_assertion_is_refused_for_what_was_said() {
    type Change = fn(&mut Said);
    let rows: Vec<(&str, Change, Fault)> = vec![
        ("type", |said| said.client_data["type"] = "webauthn.create".into(), Fault::Ceremony("webauthn.create".into())),
        ("challenge", |said| said.client_data["challenge"] = "".into(), Fault::Challenge),
        (
            "origin",
            |said| said.client_data["origin"] = "http://app.example.com".into(),
            Fault::Origin("http://app.example.com".into()),
        ),
        (
            "app of another",
            |said| said.client_data["origin"] = "android:apk-key-hash:x".into(),
            Fault::Origin("android:apk-key-hash:x".into()),
        ),
        ("cross origin", |said| said.client_data["crossOrigin"] = true.into(), Fault::CrossOrigin),
        ("relying party", |said| said.party = "evil.com", Fault::RelyingParty),
        ("nobody there", |said| said.flags &= !1, Fault::UserAbsent),
        ("nobody verified", |said| said.flags &= !4, Fault::UserUnverified),
        ("backed up, not eligible", |said| said.flags |= BACKED_UP, Fault::BackupState),
        ("eligible now", |said| said.flags |= BACKUP_ELIGIBLE, Fault::BackupEligibility),
        ("trailing bytes", |said| said.after = vec![0xa0], Fault::AuthenticatorData),
        ("the same count", |said| said.count = 5, Fault::Counter { known: 5, given: 5 }),
        ("a count before", |said| said.count = 4, Fault::Counter { known: 5, given: 4 }),
        ("no count any more", |said| said.count = 0, Fault::Counter { known: 5, given: 0 }),
    ];
    let software = Software::p256();
    for (name, change, fault) in rows {
        let mut said = sixth_use(&software);
        change(&mut said);
        assert_eq!(authenticated(&software.assertion(&said), &software), Err(fault), "{name}");
    }
}

#[test]
fn a_response_is_refused_for_its_json() {
    type Change = fn(&mut Value);
    let software = Software::p256();
    let long = base64(&[1; 1024]);
    let shared: Vec<(&str, Change, Fault)> = vec![
        ("type", |response| response["type"] = "password".into(), Fault::Malformed("/type")),
        ("no type", |response| response["type"] = Value::Null, Fault::Malformed("/type")),
        ("no id", |response| response["id"] = Value::Null, Fault::Malformed("/id")),
        ("not base64url", |response| response["id"] = "a+/b".into(), Fault::Malformed("/id")),
        ("no raw id", |response| response["rawId"] = 7.into(), Fault::Malformed("/rawId")),
        ("ids differ", |response| response["rawId"] = "AAAA".into(), Fault::DifferentIds),
        (
            "empty id",
            |response| {
                response["id"] = "".into();
                response["rawId"] = "".into();
            },
            Fault::Malformed("/id"),
        ),
        ("no response", |response| response["response"] = "x".into(), Fault::Malformed("/response/clientDataJSON")),
        (
            "huge client data",
            |response| response["response"]["clientDataJSON"] = "A".repeat(90_000).into(),
            Fault::Malformed("/response/clientDataJSON"),
        ),
        ("an array", |response| *response = json!([]), Fault::Malformed("/type")),
    ];
    for (name, change, fault) in shared {
        let mut registration = software.registration(&software.creates());
        change(&mut registration);
        assert_eq!(registered(&registration), Err(fault.clone()), "{name}");
        let mut assertion = software.assertion(&sixth_use(&software));
        change(&mut assertion);
        assert_eq!(authenticated(&assertion, &software), Err(fault), "{name}");
    }
    let registrations: Vec<(&str, Change, Fault)> = vec![
        (
            "transports",
            |response| response["response"]["transports"] = "usb".into(),
            Fault::Malformed("/response/transports"),
        ),
        (
            "transport",
            |response| response["response"]["transports"] = json!([1]),
            Fault::Malformed("/response/transports"),
        ),
        (
            "attestation object",
            |response| response["response"]["attestationObject"] = "oA".into(),
            Fault::AttestationObject,
        ),
        (
            "no attestation object",
            |response| response["response"]["attestationObject"] = Value::Null,
            Fault::Malformed("/response/attestationObject"),
        ),
    ];
    for (name, change, fault) in registrations {
        let mut registration = software.registration(&software.creates());
        change(&mut registration);
        assert_eq!(registered(&registration), Err(fault), "{name}");
    }
    let assertions: Vec<(&str, Change, Fault)> = vec![
        (
            "user handle",
            |response| response["response"]["userHandle"] = 7.into(),
            Fault::Malformed("/response/userHandle"),
        ),
        (
            "long user handle",
            |response| response["response"]["userHandle"] = base64(&[1; 65]).into(),
            Fault::Malformed("/response/userHandle"),
        ),
        ("signature", |response| response["response"]["signature"] = "AAAA".into(), Fault::Signature),
        ("no signature", |response| response["response"]["signature"] = "".into(), Fault::Signature),
        (
            "no authenticator data",
            |response| response["response"]["authenticatorData"] = "".into(),
            Fault::AuthenticatorData,
        ),
    ];
    for (name, change, fault) in assertions {
        let mut assertion = software.assertion(&sixth_use(&software));
        change(&mut assertion);
        assert_eq!(authenticated(&assertion, &software), Err(fault), "{name}");
    }
    assert_eq!(credential_id(&json!({ "type": "public-key", "id": long, "rawId": long })), Err(Fault::LongId));
}

#[test]
fn a_credential_is_its_own_and_nobody_elses() {
    let (software, other) = (Software::p256(), Software::p256());
    let response = software.assertion(&sixth_use(&software));
    let foreign_key = Known { id: &software.id, public_key: &other.public_key(), ..KNOWN };
    assert_eq!(authenticated_by(&response, &foreign_key), Err(Fault::Signature));
    let foreign_id = Known { id: b"another", public_key: &software.public_key(), ..KNOWN };
    assert_eq!(authenticated_by(&response, &foreign_id), Err(Fault::OtherCredential));
    // What it signed is not what another use would have said.
    let mut moved = response;
    let seventh_use = Said { count: 7, ..software.asserts() };
    moved["response"]["authenticatorData"] = base64(&seventh_use.authenticator_data()).into();
    assert_eq!(authenticated(&moved, &software), Err(Fault::Signature));
}

#[test]
fn what_differs_and_does_no_harm_is_taken() {
    type Change = fn(&mut Said);
    let software = Software::p256();
    let rows: Vec<(&str, Change)> = vec![
        ("an app", |said| said.client_data["origin"] = "android:apk-key-hash:abc".into()),
        ("more client data", |said| said.client_data["more"] = json!({ "and": ["more"] })),
        ("no word on frames", |said| said.client_data["crossOrigin"] = Value::Null),
        ("a byte order mark", |said| {
            said.raw_client_data = Some([b"\xef\xbb\xbf", said.client_data.to_string().as_bytes()].concat());
        }),
        ("extensions", |said| {
            said.flags |= EXTENSIONS;
            said.after = cbor(&map(vec![("credProtect", 2.into())]));
        }),
        ("bits for later", |said| said.flags |= 0b10_0010),
        ("a certificate", |said| {
            said.format = "packed";
            said.statement = Some(map(vec![("x5c", Cbor::Array(Vec::new()))]));
        }),
        ("a security key", |said| said.format = "fido-u2f"),
        ("a format of tomorrow", |said| said.format = "tomorrow"),
    ];
    for (name, change) in rows {
        let mut said = software.creates();
        change(&mut said);
        assert!(registered(&software.registration(&said)).is_ok(), "{name}");
    }
    let mut response = software.registration(&software.creates());
    response["id"] = URL_SAFE.encode(&software.id).into();
    response["response"].as_object_mut().unwrap().remove("transports");
    assert_eq!(registered(&response).unwrap().transports, Vec::<String>::new());
    response["response"]["transports"] = json!(vec!["usb".repeat(20), String::new(), "ble".into()]);
    assert_eq!(registered(&response).unwrap().transports, ["ble"]);
    response["response"]["transports"] = json!(vec!["usb"; 99]);
    assert_eq!(registered(&response).unwrap().transports.len(), 16);
}

#[test]
fn backups_and_counters_are_reported() {
    let software = Software::ed25519();
    let flags = PRESENT_AND_VERIFIED | BACKUP_ELIGIBLE;
    let credential =
        registered(&software.registration(&Said { flags: flags | CREDENTIAL, ..software.creates() })).unwrap();
    assert!(credential.backup_eligible && !credential.backed_up);
    let public_key = software.public_key();
    let known = Known { id: &software.id, public_key: &public_key, sign_count: 0, backup_eligible: true };
    for (flags, count) in [(flags, 0), (flags | BACKED_UP, 0), (flags, 1), (flags | BACKED_UP, u32::MAX)] {
        let mut response = software.assertion(&Said { flags, count, ..software.asserts() });
        response["response"]["userHandle"] = if count == 0 { Value::Null } else { "".into() };
        let expected =
            Assertion { sign_count: count, backed_up: flags & BACKED_UP != 0, user_verified: true, user_handle: None };
        assert_eq!(authenticated_by(&response, &known), Ok(expected));
    }
    let response = software.assertion(&software.asserts());
    assert_eq!(authenticated_by(&response, &known), Err(Fault::BackupEligibility));
}

#[test]
fn verification_that_is_preferred_is_reported() {
    let software = Software::p256();
    let party = RelyingParty { id: PARTY, origins: &[ORIGIN.to_owned()] };
    let response = software.registration(&Said { flags: 1 | CREDENTIAL, ..software.creates() });
    let credential = register(&response, CHALLENGE, &party, UserVerification::Preferred).unwrap();
    assert!(!credential.user_verified);
    let response = software.assertion(&Said { flags: 1, ..sixth_use(&software) });
    let known = Known { id: &software.id, public_key: &software.public_key(), ..KNOWN };
    let assertion = authenticate(&response, CHALLENGE, &party, UserVerification::Preferred, &known).unwrap();
    assert!(!assertion.user_verified);
}

#[test]
fn challenges_are_32_bytes_and_differ() {
    let (one, other) = (challenge().unwrap(), challenge().unwrap());
    assert!(one != other && URL_SAFE_NO_PAD.decode(one).unwrap().len() == 32);
}

/// The attestation object is that of the bytes, or holds them as authenticator data, or as what follows in it.
fn registrations_with(software: &Software, bytes: &[u8]) -> [Value; 4] {
    let good = software.registration(&software.creates());
    let with_object = |object: &[u8]| {
        let mut response = good.clone();
        response["response"]["attestationObject"] = base64(object).into();
        response
    };
    let with_data = |data: Vec<u8>| {
        with_object(&cbor(&map(vec![("fmt", "none".into()), ("attStmt", map(vec![])), ("authData", data.into())])))
    };
    let with_key = Said { key: bytes.to_vec(), ..software.creates() };
    let flags = PRESENT_AND_VERIFIED | CREDENTIAL | EXTENSIONS;
    let with_extensions = Said { flags, after: bytes.to_vec(), ..software.creates() };
    [
        with_object(bytes),
        with_data(bytes.to_vec()),
        with_data(with_key.authenticator_data()),
        with_data(with_extensions.authenticator_data()),
    ]
}

#[test]
fn cbor_without_end_takes_neither_stack_nor_memory() {
    let software = Software::p256();
    let nested = |head: &[u8]| head.repeat(40_000 / head.len());
    let mut all: Vec<Vec<u8>> = vec![
        nested(&[0x81]),
        nested(&[0x9f]),
        nested(&[0xa1]),
        nested(&[0xa1, 0x01]),
        nested(&[0xbf, 0x01]),
        nested(&[0xc1]),
        nested(&[0xc2]),
        nested(&[0xa1, 0x01, 0xc1]),
        nested(&[0x5f]),
        nested(&[0x7f]),
    ];
    for head in [0x5b_u8, 0x7b, 0x9b, 0xbb] {
        let long = [&[head], &u64::MAX.to_be_bytes()[..]].concat();
        all.push(long.clone());
        all.push([&[0xa1, 0x01], &long[..]].concat());
    }
    for bytes in all {
        for response in registrations_with(&software, &bytes) {
            assert!(registered(&response).is_err(), "{:?}", &bytes[..9.min(bytes.len())]);
        }
    }
}

fn set_bytes(response: &mut Value, place: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let member = response.pointer_mut(place).unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(member.as_str().unwrap()).unwrap();
    change(&mut bytes);
    *member = base64(&bytes).into();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nobody registers with bytes made up, wherever they stand; extensions alone may be what they like.
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let software = Software::p256();
        let [object, data, key, extensions] = registrations_with(&software, &bytes);
        for response in [object, data, key] {
            prop_assert!(registered(&response).is_err());
        }
        let _ = registered(&extensions);
        let good = software.assertion(&sixth_use(&software));
        let known = Known { id: &software.id, public_key: &bytes, ..KNOWN };
        prop_assert!(authenticated_by(&good, &known).is_err());
        for place in ["/id", "/response/clientDataJSON", "/response/authenticatorData", "/response/signature"] {
            let mut response = good.clone();
            set_bytes(&mut response, place, |member| *member = bytes.clone());
            prop_assert!(authenticated(&response, &software).is_err());
        }
    }

    /// The same for JSON of the right shape with any text in it.
    #[test]
    fn arbitrary_text_is_refused_without_a_panic(text in ".{0,60}") {
        let members = json!({ "clientDataJSON": text, "attestationObject": text, "authenticatorData": text, "signature": text });
        let software = Software::p256();
        for id in [text.clone(), base64(&software.id)] {
            let response = json!({ "type": "public-key", "id": id, "rawId": id, "response": members });
            prop_assert!(registered(&response).is_err() && authenticated(&response, &software).is_err());
        }
    }

    #[test]
    fn what_was_cut_is_refused(at in any::<prop::sample::Index>(), format in prop::sample::select(vec!["none", "packed"])) {
        let software = Software::p256();
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(at.index(bytes.len()));
        let registration = software.registration(&Said { format, ..software.creates() });
        for place in ["/id", "/rawId", "/response/clientDataJSON", "/response/attestationObject"] {
            let mut response = registration.clone();
            set_bytes(&mut response, place, cut);
            prop_assert!(registered(&response).is_err(), "{place}");
        }
        let mut data = software.creates().authenticator_data();
        cut(&mut data);
        prop_assert!(registered(&registrations_with(&software, &data)[1]).is_err());
        let assertion = software.assertion(&sixth_use(&software));
        for place in ["/id", "/rawId", "/response/clientDataJSON", "/response/authenticatorData", "/response/signature"] {
            let mut response = assertion.clone();
            set_bytes(&mut response, place, cut);
            prop_assert!(authenticated(&response, &software).is_err(), "{place}");
        }
    }

    /// Whatever is signed is signed to the last bit.
    #[test]
    fn a_changed_assertion_is_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
        let software = Software::ed25519();
        let assertion = software.assertion(&sixth_use(&software));
        for place in ["/id", "/rawId", "/response/clientDataJSON", "/response/authenticatorData", "/response/signature"] {
            let mut response = assertion.clone();
            set_bytes(&mut response, place, |bytes| {
                let at = at.index(bytes.len());
                bytes[at] ^= 1_u8 << bit;
            });
            prop_assert!(authenticated(&response, &software).is_err(), "{place}");
        }
        let self_attested = software.registration(&Said { format: "packed", ..software.creates() });
        let mut response = self_attested;
        set_bytes(&mut response, "/response/clientDataJSON", |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
        });
        prop_assert!(registered(&response).is_err());
    }
}
