use super::*;

fn message(tag: u8, body: &[u8]) -> BytesMut {
    let mut message = BytesMut::new();
    put(&mut message, tag, &[body]);
    message
}

#[test]
fn versions_are_read_as_servers_say_them() {
    for (said, wanted) in [
        ("15.20 (Debian 15.20-1)", Some((15, 20))),
        ("18.4", Some((18, 4))),
        ("18beta1", Some((18, 0))),
        ("17", Some((17, 0))),
        ("EnterpriseDB", None),
        ("", None),
    ] {
        assert_eq!(numbers(said.as_bytes()), wanted, "{said}");
    }
}

#[test]
fn a_server_that_loses_a_role_is_too_old() {
    for (minor, kept) in
        [((17, 0), false), ((17, 1), true), ((15, 8), false), ((15, 9), true), ((11, 22), false)]
    {
        assert_eq!(keeps_a_role(minor), kept, "{minor:?}");
    }
    assert!(keeps_a_role((18, 0)));
}

#[test]
fn parameters_are_found_among_other_messages() {
    let said = [
        message(b'R', &[0, 0, 0, 0]),
        message(b'S', b"server_version\x0018.4\0"),
        message(b'N', b"SNOTICE\0\0"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    let found: Vec<_> = parameters(&said).collect();
    assert_eq!(found, [(&b"server_version"[..], &b"18.4"[..]), (b"TimeZone", b"UTC")]);
    assert_eq!(frames(&said).map(<[u8]>::len).sum::<usize>(), said.len());
    assert_eq!(frames(&said[..said.len() - 1]).count(), 4, "half a message is none");
}

#[test]
fn a_name_that_would_be_more_than_a_name_is_refused() {
    assert!(is_parameter_name("TimeZone") && is_parameter_name("my.name_1"));
    for name in ["", "a;b", "a b", "a\"", "a--"] {
        assert!(!is_parameter_name(name), "{name}");
    }
}
