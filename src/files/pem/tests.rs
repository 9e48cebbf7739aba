//! What is read of PEM, and what is said of PEM that is damaged.

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;

use super::*;

struct Pair {
    cert: String,
    key: String,
}

fn pair() -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap().self_signed(&key).unwrap();
    Pair { cert: cert.pem(), key: key.serialize_pem() }
}

fn count(text: &str) -> Result<usize, Fault> {
    certificates(text.as_bytes()).map(|found| found.len())
}

fn key_fault(text: impl AsRef<[u8]>) -> Fault {
    private_key(text.as_ref()).unwrap_err()
}

#[test]
fn what_is_written_is_read() {
    let Pair { cert, key } = pair();
    let read = certificates(cert.as_bytes()).unwrap();
    assert_eq!(read, [CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()]);
    let read = private_key(key.as_bytes()).unwrap();
    assert_eq!(read, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap());
    let both = format!("Bag Attributes\n  friendlyName: db\n{key}\n# the chain\n{cert}{cert}");
    assert_eq!(count(&both), Ok(2));
    assert!(private_key(both.as_bytes()).is_ok());
}

#[test]
fn lines_may_end_as_on_any_system_and_old_spellings_hold() {
    let Pair { cert, key } = pair();
    assert_eq!(count(&cert.replace('\n', "\r\n")), Ok(1));
    assert_eq!(count(&cert.replace('\n', "\r")), Ok(1));
    assert_eq!(count(&cert.replace("-----\n", "-----  \t\n")), Ok(1));
    assert_eq!(count(&cert.replace("CERTIFICATE", "X509 CERTIFICATE")), Ok(1));
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    assert!(private_key(format!("{parameters}{key}").as_bytes()).is_ok());
}

#[test]
fn a_byte_order_mark_hides_no_block() {
    let Pair { cert, key } = pair();
    assert_eq!(count(&format!("\u{feff}{cert}")), Ok(1));
    assert_eq!(count(&format!("\u{feff}{cert}\u{feff}{cert}{cert}")), Ok(3));
    assert!(private_key(format!("\u{feff}{key}").as_bytes()).is_ok());
}

#[test]
fn a_block_with_damaged_lines_is_an_error_and_not_passed_over() {
    let Pair { cert, key } = pair();
    assert_eq!(key_fault(key.replace('\n', "\\n")), Fault::EscapedNewlines);
    assert_eq!(key_fault(key.replace('\n', " ")), Fault::OneLine);
    assert_eq!(key_fault(key.replace('\n', "")), Fault::OneLine);
    assert_eq!(key_fault(key.replacen("-----\n", "-----", 1)), Fault::OneLine);
    assert_eq!(key_fault(key.replace("-----BEGIN", "  -----BEGIN")), Fault::OneLine);
    assert_eq!(count(&format!("{}{cert}", cert.trim_end())), Err(Fault::Joined));
    assert_eq!(key_fault(key.replace("-----END", "----END")), Fault::NoEnd);
    assert_eq!(count(&format!("{}\n{cert}", &cert[..200])), Err(Fault::NoEnd));
    assert_eq!(count(&format!("{cert}-----END CERTIFICATE-----")), Err(Fault::StrayEnd));
    assert_eq!(count(&cert.replace("END CERTIFICATE", "END X509 CRL")), Err(Fault::StrayEnd));
    assert_eq!(count(&cert.replace("-----\nM", "-----\n*")), Err(Fault::NotBase64));
    let lines: Vec<_> = key.lines().collect();
    assert_eq!(key_fault([lines[0], lines[1], lines[lines.len() - 1]].join("\n")), Fault::NotWhole);
    let commented: String = cert.lines().map(|line| format!("# {line}\n")).collect();
    assert_eq!(count(&format!("{commented}{cert}")), Ok(1));
}

#[test]
fn what_is_no_pem_is_said_to_be_what_it_is() {
    let Pair { cert, key } = pair();
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    assert_eq!(key_fault(wide(&key)), Fault::Utf16);
    assert_eq!(key_fault(wide(&format!("\u{feff}{key}"))), Fault::Utf16);
    assert_eq!(key_fault(private_key(key.as_bytes()).unwrap().secret_der()), Fault::Der);
    assert_eq!(certificates(&certificates(cert.as_bytes()).unwrap()[0]), Err(Fault::Der));
    assert_eq!(key_fault(""), Fault::Empty);
    assert_eq!(key_fault("hvs.secret"), Fault::Absent(Wanted::PrivateKey));
    assert_eq!(key_fault(&cert), Fault::OtherKind(Wanted::PrivateKey));
    assert_eq!(count(&key), Err(Fault::OtherKind(Wanted::Certificate)));
    assert_eq!(revocation_lists(cert.as_bytes()), Err(Fault::OtherKind(Wanted::RevocationList)));
}

#[test]
fn what_needs_openssl_says_so() {
    let Pair { cert, key } = pair();
    assert_eq!(count(&cert.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), Err(Fault::Trusted));
    assert_eq!(key_fault(key.replace("PRIVATE", "ENCRYPTED PRIVATE")), Fault::Encrypted);
    let legacy = "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123456789ABCDEF\n\n";
    let legacy = key.replace("PRIVATE", "RSA PRIVATE").replacen("-----\n", legacy, 1);
    assert_eq!(key_fault(legacy), Fault::Encrypted);
    assert_eq!(key_fault(key.replace("PRIVATE", "OPENSSH PRIVATE")), Fault::OpenSsh);
}

proptest! {
    /// No input panics, and what is said of it is one of the fixed sentences.
    #[test]
    fn no_fault_repeats_its_input(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("-----BEGIN PRIVATE KEY-----".to_owned()),
                Just("-----END PRIVATE KEY-----".to_owned()),
                Just("\n".to_owned()),
                "[A-Za-z0-9+/=]{8,64}",
            ],
            0..12,
        )
    ) {
        let text = pieces.concat();
        if let Err(fault) = private_key(text.as_bytes()) {
            let said = format!("{fault} {fault:?}");
            for piece in pieces.iter().filter(|piece| piece.len() >= 8 && !piece.starts_with('-')) {
                prop_assert!(!said.contains(piece.as_str()));
            }
        }
    }
}
