//! Conversations with the console, without a socket. Floor 4.

use bytes::Bytes;

use super::*;
use crate::postgres::protocol::backend::Format;
use crate::postgres::protocol::frontend::Target;

fn console() -> Console {
    let rows =
        || vec![vec![Value::Text("app".to_owned()), Value::Int8(3)], vec![Value::Null, Value::Int8(4)]];
    let view = View {
        name: "routes",
        about: "routes",
        columns: &[("route", Type::Text), ("sessions", Type::Int8)],
        rows: Box::new(rows),
    };
    Console::new(Access::Socket, "leasehold".to_owned(), vec![view])
}

/// The types of the messages that answer these, and all that was said.
fn answers(messages: Vec<Frontend>) -> (String, BytesMut) {
    let console = console();
    let mut conversation = Conversation::new(&console, "me".to_owned());
    messages.into_iter().for_each(|message| conversation.take(message));
    let all = conversation.out.split();
    let (mut types, mut rest) = (String::new(), &all[..]);
    while let Some((tag, after)) = rest.split_first() {
        types.push(char::from(*tag));
        let length = u32::from_be_bytes(*after.first_chunk().unwrap());
        rest = &after[usize::try_from(length).unwrap()..];
    }
    (types, all)
}

fn query(text: &str) -> Frontend {
    Frontend::Query(text.to_owned())
}

fn parse(text: &str) -> Frontend {
    Frontend::Parse { statement: "s".into(), text: text.to_owned() }
}

fn bind(formats: Vec<Format>) -> Frontend {
    Frontend::Bind { portal: "p".into(), statement: "s".into(), parameters: 0, formats }
}

fn execute(most: usize) -> Frontend {
    Frontend::Execute { portal: "p".into(), most }
}

fn says(all: &[u8], text: &str) -> bool {
    all.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_query_is_answered_with_its_rows() {
    assert_eq!(answers(vec![query("SHOW ROUTES")]).0, "TDDCZ");
    assert_eq!(answers(vec![query("SHOW help; SELECT 1; SET x TO y")]).0, "TDDCTDCCZ");
    assert_eq!(answers(vec![query(" -- nothing")]).0, "IZ");
}

#[test]
fn what_it_does_not_know_is_an_error_and_ends_the_query() {
    let (types, said) = answers(vec![query("SHOW ROUTE; SHOW ROUTES")]);
    assert_eq!(types, "EZ");
    assert!(says(&said, "C42704\0") && says(&said, "Did you mean SHOW ROUTES?"));
    let (types, said) = answers(vec![query("SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings")]);
    assert_eq!(types, "EZ");
    assert!(says(&said, "C0A000\0") && says(&said, "SHOW HELP"));
}

/// Of an ErrorResponse.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>
fn hint(said: &[u8]) -> Option<String> {
    let fields = said.get(5..)?.split(|byte| *byte == 0);
    let hint = fields.filter_map(|field| field.strip_prefix(b"H")).next()?;
    Some(String::from_utf8(hint.to_vec()).unwrap())
}

#[test]
fn every_error_that_a_person_can_mend_says_how() {
    let several = "SELECT 1;".repeat(17);
    let parsed = |count: usize| {
        let name = |number: usize| Bytes::from(format!("s{number}"));
        (0..count).map(move |number| Frontend::Parse { statement: name(number), text: String::new() })
    };
    let bound = |count: usize| {
        let portal = |number: usize| Bytes::from(format!("p{number}"));
        let bind = move |number| Frontend::Bind {
            portal: portal(number),
            statement: "s".into(),
            parameters: 0,
            formats: Vec::new(),
        };
        [parse("SELECT 1")].into_iter().chain((0..count).map(bind))
    };
    let with_parameters =
        Frontend::Bind { portal: "p".into(), statement: "s".into(), parameters: 1, formats: Vec::new() };
    let cases: Vec<(Vec<Frontend>, &str)> = vec![
        (vec![query("SHOW ROUTE")], "Did you mean SHOW ROUTES?"),
        (vec![query("SHOW nothing of it")], "SHOW HELP lists what it shows."),
        (vec![query("RELOAD")], "SHOW HELP lists what it shows."),
        (vec![Frontend::FunctionCall], "SHOW HELP lists what it shows."),
        (vec![query(&several)], "Send 16 at once at most."),
        (vec![query("BEGIN; SHOW x"), query("SHOW ROUTES")], "ROLLBACK ends it."),
        (vec![parse("SELECT 1; SELECT 1")], "Send each by itself, or all by the simple protocol."),
        (vec![parse("SELECT 1"), parse("SELECT 1")], "Close it first, or give the new one another name."),
        (vec![parse("SELECT 1"), with_parameters], "Write the name itself behind SHOW."),
        (parsed(65).collect(), "Close those that are needed no more, or connect again."),
        (bound(65).collect(), "Close those that are needed no more, or connect again."),
    ];
    for (messages, expected) in cases {
        let (types, said) = answers(messages);
        // The last ErrorResponse, which a ReadyForQuery may follow.
        let all = types.strip_suffix('Z').unwrap_or(&types);
        assert!(all.ends_with('E'), "{types}");
        let is_error = |bytes: &[u8]| bytes.starts_with(b"E") && bytes.ends_with(b"SER");
        let (at, _) = said.windows(8).enumerate().rfind(|(_, bytes)| is_error(bytes)).unwrap();
        assert_eq!(hint(&said[at..]).as_deref(), Some(expected));
    }
    for fatal in [full(), silent(), stopping()] {
        assert!(hint(&fatal).is_some(), "{fatal:?}");
    }
}

#[test]
fn a_portal_is_read_in_pieces_and_in_both_formats() {
    let described = Frontend::Describe(Target::Statement("s".into()));
    let of_portal = Frontend::Describe(Target::Portal("p".into()));
    let binary = vec![Format::Binary];
    let messages = vec![
        parse("SHOW routes"),
        described,
        bind(binary),
        of_portal,
        execute(1),
        execute(1),
        execute(0),
        Frontend::Sync,
    ];
    let (types, said) = answers(messages);
    assert_eq!(types, "1tT2TDsDCCZ");
    assert!(says(&said, "\0\0\0\x08\0\0\0\0\0\0\0\x03"), "a number in binary");
}

#[test]
fn after_an_error_all_up_to_the_sync_is_passed_over() {
    let messages = vec![parse("SHOW nothing"), bind(Vec::new()), execute(0), Frontend::Sync, parse("")];
    assert_eq!(answers(messages).0, "EZ1");
    let messages = vec![parse("SELECT 1; SELECT 1"), Frontend::Sync, bind(Vec::new()), Frontend::Sync];
    assert_eq!(answers(messages).0, "EZEZ");
}

#[test]
fn a_transaction_is_followed() {
    let status = |messages| {
        let (_, said) = answers(messages);
        char::from(said[said.len() - 1])
    };
    assert_eq!(status(vec![query("BEGIN")]), 'T');
    assert_eq!(status(vec![query("BEGIN; SHOW x")]), 'E');
    let (types, said) = answers(vec![query("BEGIN; SHOW x"), query("SHOW ROUTES"), query("COMMIT")]);
    assert_eq!(types, "CEZEZCZ");
    assert!(says(&said, "C25P02\0") && says(&said, "ROLLBACK\0") && said.ends_with(b"Z\0\0\0\x05I"));
}

#[test]
fn what_it_cannot_hold_is_refused() {
    let named =
        |at: usize| Frontend::Parse { statement: format!("s{at}").into(), text: "SHOW help".to_owned() };
    let (types, said) = answers((0..100).map(named).collect());
    assert_eq!(types, "1".repeat(64) + "E");
    assert!(says(&said, "C54000\0"));
}

#[test]
fn a_query_has_so_many_statements_and_no_more() {
    let query_of = |statements: usize| query(&"SELECT 1;".repeat(statements));
    assert_eq!(answers(vec![query_of(16)]).0, "TDC".repeat(16) + "Z");
    let (types, all) = answers(vec![query_of(17)]);
    assert_eq!(types, "EZ");
    assert!(says(&all, "C54000"), "{:?}", all.escape_ascii().to_string());
}

#[test]
fn parameters_that_drivers_ask_for_have_values() {
    for name in ["server_version", "DATESTYLE", "transaction isolation level", "TimeZone"] {
        assert_eq!(answers(vec![query(&format!("SHOW {name}"))]).0, "TDCZ", "{name}");
    }
}

#[tokio::test]
async fn a_client_is_welcomed_answered_and_let_go() {
    let (near, mut far) = tokio::io::duplex(4096);
    let console = console();
    let startup = StartupMessage::new(9_999).with(b"user", b"me").with(b"_pq_.test", b"x");
    let (stop, stopped) = watch::channel(Stop::Running);
    let within = Duration::from_secs(10);
    let asking = async {
        far.write_all(b"Q\0\0\0\x0eSHOW help\0X\0\0\0\x04").await.unwrap();
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (heard, ()) = tokio::join!(asking, console.serve(Buffered::new(near), &startup, stopped, within));
    assert!(
        heard.starts_with(b"v\0\0\0\x16\0\x03\0\x02\0\0\0\x01_pq_.test\0R"),
        "what it takes of the protocol"
    );
    assert!(says(&heard, "server_version\x0018.0 (leasehold ") && says(&heard, "SHOW ROUTES"));
    drop(stop);
}

#[tokio::test]
async fn a_stop_of_the_process_ends_it_with_a_word() {
    let (near, mut far) = tokio::io::duplex(4096);
    let console = console();
    let startup = StartupMessage::new(0).with(b"user", b"me");
    let (stop, stopped) = watch::channel(Stop::Running);
    let within = Duration::from_secs(10);
    let asking = async {
        stop.send_replace(Stop::Closing);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (heard, ()) = tokio::join!(asking, console.serve(Buffered::new(near), &startup, stopped, within));
    assert!(says(&heard, "C57P01\0"));
}

/// A console whose answer fills more than the way to its client holds; the client has asked, and has read the first bytes.
async fn half_read() -> (impl Future<Output = ()>, tokio::io::DuplexStream, watch::Sender<Stop>, Vec<u8>) {
    let rows = || (0..200).map(|_| vec![Value::Text("x".repeat(100))]).collect();
    let view = View { name: "much", about: "much", columns: &[("text", Type::Text)], rows: Box::new(rows) };
    let console = Console::new(Access::All, "leasehold".to_owned(), vec![view]);
    let (near, mut client) = tokio::io::duplex(1024);
    let (stop, stopped) = watch::channel(Stop::Running);
    let within = Duration::from_secs(30);
    let mut serving = Box::pin(async move {
        let startup = StartupMessage::new(0).with(b"user", b"me");
        console.serve(Buffered::new(near), &startup, stopped, within).await;
    });
    let mut heard = Vec::new();
    let asking = async {
        client.write_all(b"Q\0\0\0\x0eSHOW much\0").await.unwrap();
        while !says(&heard, "xxx") {
            client.read_buf(&mut heard).await.unwrap();
        }
    };
    tokio::select! {
        () = &mut serving => panic!("it serves on"),
        () = asking => {}
    }
    (serving, client, stop, heard)
}

/// The types of whole messages, and whether anything is behind them.
fn whole(mut rest: &[u8]) -> (String, bool) {
    let mut types = String::new();
    while let Some((tag, after)) = rest.split_first()
        && let Some(length) = after.first_chunk().map(|length| u32::from_be_bytes(*length))
        && let Some(behind) = after.get(usize::try_from(length).unwrap()..)
    {
        types.push(char::from(*tag));
        rest = behind;
    }
    (types, !rest.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_stop_comes_behind_the_answer_that_is_being_sent() {
    let (serving, mut client, stop, mut heard) = half_read().await;
    stop.send_replace(Stop::Closing);
    let reading = async {
        client.read_to_end(&mut heard).await.unwrap();
        drop(client);
    };
    tokio::join!(serving, reading);
    let (types, is_cut) = whole(&heard);
    assert!(types.ends_with(&("D".repeat(200) + "CZE")) && !is_cut, "{types}");
    assert!(says(&heard, "C57P01\0"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_not_waited_for_and_gets_nothing_in_the_middle_of_it() {
    let (serving, mut client, stop, mut heard) = half_read().await;
    stop.send_replace(Stop::Closing);
    serving.await;
    client.read_to_end(&mut heard).await.unwrap();
    let (types, is_cut) = whole(&heard);
    assert!(is_cut && !types.contains(['C', 'E']), "{types}");
    assert!(!says(&heard, "57P01"));
}
