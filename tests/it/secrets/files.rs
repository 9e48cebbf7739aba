//! No secret comes out of a file that is damaged, nor of a place where a secret does not belong: at the start, in a
//! check, in a policy, at a reload.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use reqwest::Method;

use crate::harness::{
    Authority, Backends, Builder, Leasehold, SOON, Spec, bench, eventually, leasehold, same,
};

/// What must not come out: secrets in every form in which a program shows bytes.
#[derive(Default)]
struct Hidden(Vec<String>);

impl Hidden {
    fn of(secrets: &[&str]) -> Self {
        let mut this = Self::default();
        for secret in secrets {
            // Of PEM each line of base64, as no error repeats more than lines.
            for line in secret.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----")) {
                this.0.push(line.to_owned());
                this.0.push(line.chars().take(16).collect());
                let decimal: Vec<_> = line.bytes().take(8).map(|byte| byte.to_string()).collect();
                this.0.extend([decimal.join(", "), decimal.join(",")]);
                let hex = line.bytes().take(8).fold(String::new(), |mut hex, byte| {
                    write!(hex, "{byte:02x}").unwrap();
                    hex
                });
                this.0.push(hex);
            }
        }
        // The dashes of a BEGIN line, as a library once showed a whole file.
        this.0.push("45, 45, 45, 45, 45".to_owned());
        this
    }

    #[track_caller]
    fn are_not_in(&self, place: &str, text: &str) {
        for form in &self.0 {
            assert!(!text.contains(form.as_str()), "{form} in {place}: {text}");
        }
    }

    async fn are_not_told_by(&self, place: &str, builder: &Builder) {
        for command in ["check", "policy"] {
            let builder =
                if command == "check" { builder.clone().switch("--offline") } else { builder.clone() };
            let output = builder.command(command).await;
            for text in [&output.stdout, &output.stderr] {
                self.are_not_in(&format!("{command}, {place}"), &String::from_utf8_lossy(text));
            }
        }
    }
}

/// Every usual way to damage a file of text on its way through variables, editors, templates and base64.
fn mangled(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let body: String = text.lines().filter(|line| !line.contains("-----")).collect();
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let mut ways: Vec<(&'static str, Vec<u8>)> = [
        ("escaped newlines", text.replace('\n', "\\n")),
        ("spaces for newlines", text.replace('\n', " ")),
        ("no newlines", text.replace('\n', "")),
        ("text behind BEGIN", text.replacen("-----\n", "-----", 1)),
        ("text before BEGIN", text.replace("-----BEGIN", "key: -----BEGIN")),
        ("indented", text.replace('\n', "\n  ").replacen("-----BEGIN", "  -----BEGIN", 1)),
        ("in quotes", format!("\"{text}\"")),
        ("carriage returns", text.replace('\n', "\r")),
        ("byte order mark", format!("\u{feff}{text}")),
        ("twice without a newline", format!("{}{text}", text.trim_end())),
        ("cut", text[..text.len() * 2 / 3].to_owned()),
        ("another label", text.replace("BEGIN ", "BEGIN X ")),
        ("the body alone", body.clone()),
        ("no base64", text.replace("-----\nM", "-----\n*M")),
        ("trusted", text.replace("CERTIFICATE", "TRUSTED CERTIFICATE")),
        (
            "encrypted",
            text.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
                .replace("END PRIVATE", "END ENCRYPTED PRIVATE"),
        ),
        (
            "encrypted in the old way",
            text.replace(
                "PRIVATE KEY-----\nM",
                "PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x,y\n\nM",
            ),
        ),
        ("two lines", format!("{}\nand more\n", text.trim_end())),
        ("a name in front", format!("secret={text}")),
        ("a zero", format!("{text}\0")),
        ("empty", String::new()),
    ]
    .into_iter()
    .map(|(way, text)| (way, text.into_bytes()))
    .collect();
    ways.push(("UTF-16", wide(text)));
    ways.push(("UTF-16 with its mark", wide(&format!("\u{feff}{text}"))));
    ways.push(("not UTF-8", [text.as_bytes(), b"\xff\xfe\xfd"].concat()));
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body);
    ways.extend(der.ok().map(|der| ("DER", der)));
    // What is PEM's alone leaves other text as it was.
    ways.retain(|(_, bytes)| bytes != text.as_bytes());
    ways
}

/// A good configuration of PEM files: where each lies, by its key.
struct Pem {
    files: BTreeMap<&'static str, PathBuf>,
    toml: String,
    hidden: Hidden,
    /// A key, with its certificate.
    both: String,
}

impl Pem {
    fn new(directory: &Path) -> Self {
        let authority = Authority::new(directory, "ca");
        let own = authority.issue("leasehold", 5);
        let (ca, list) = (authority.ca.clone(), authority.revoke(&[7], 2090));
        let mut files = BTreeMap::new();
        for (name, from) in [
            ("sslrootcert", &ca),
            ("sslcrl", &list),
            ("sslcert", &own.cert),
            ("sslkey", &own.key),
            ("ca_cert", &ca),
            ("client_cert", &own.cert),
            ("client_key", &own.key),
            ("cert_file", &own.cert),
            ("key_file", &own.key),
            ("client_ca_file", &ca),
        ] {
            let path = directory.join(name);
            std::fs::copy(from, &path).unwrap();
            files.insert(name, path);
        }
        let (cert, key) =
            (std::fs::read_to_string(&own.cert).unwrap(), std::fs::read_to_string(&own.key).unwrap());
        let both = format!("{key}{cert}");
        let hidden = Hidden::of(&[&key]);
        let toml = Self::toml(&|name| files[name].to_str().unwrap().to_owned());
        Self { files, toml, hidden, both }
    }

    /// The configuration with this path for each key.
    fn toml(path: &dyn Fn(&str) -> String) -> String {
        let words = ["sslrootcert", "sslcrl", "sslcert", "sslkey"].map(|word| {
            let path: String = url::form_urlencoded::byte_serialize(path(word).as_bytes()).collect();
            format!("{word}={}", path.replace('+', "%20"))
        });
        let quoted = |name: &str| serde_json::Value::from(path(name)).to_string();
        format!(
            "[vault]\naddr = 'https://127.0.0.1:1'\nca_cert = {}\nclient_cert = {}\nclient_key = {}\n\
             [tls]\ncert_file = {}\nkey_file = {}\nclient_ca_file = {}\n\
             [[route]]\nvault_path = 'database/creds/app'\nupstream = 'postgresql://127.0.0.1:1/?{}'\n",
            quoted("ca_cert"),
            quoted("client_cert"),
            quoted("client_key"),
            quoted("cert_file"),
            quoted("key_file"),
            quoted("client_ca_file"),
            words.join("&"),
        )
    }

    fn builder(&self, toml: &str) -> Builder {
        leasehold().config_toml(toml).env("VAULT_TOKEN", "none").flag("--log-level", "trace")
    }
}

/// What it says to a reload, by command, by HTTP and by its log.
async fn reloaded(leasehold: &Leasehold) -> String {
    let output = leasehold.command(&["reload"]).await;
    let body = leasehold.admin(Method::POST, "/reload").await.text;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr) + &body
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_pem_file_is_shown_at_the_start_or_at_a_reload() {
    let directory = bench().directory().await;
    let pem = Pem::new(&directory);
    let mut running = pem.builder(&pem.toml).start().await;
    let (mut refused, mut taken) = (0, 0);
    for (name, path) in &pem.files {
        let good = std::fs::read(path).unwrap();
        // A key in any of these places, as a slip puts it there.
        for (way, bytes) in mangled(&pem.both) {
            let place = format!("{name}, {way}");
            std::fs::write(path, bytes).unwrap();
            pem.hidden.are_not_told_by(&place, &pem.builder(&pem.toml)).await;
            let said = reloaded(&running).await;
            pem.hidden.are_not_in(&place, &said);
            if said.contains("cannot use") {
                refused += 1;
                assert!(said.contains(&format!("{name}: cannot use {}", path.display())), "{place}: {said}");
                if refused % 20 == 1 {
                    let (status, log) = pem.builder(&pem.toml).run_to_end().await;
                    assert_eq!(status.code(), Some(78), "{place}: {}", log.0);
                    pem.hidden.are_not_in(&place, &log.0);
                }
            } else {
                taken += 1;
            }
            std::fs::write(path, &good).unwrap();
        }
    }
    let status = running.admin(Method::GET, "/status").await.text;
    pem.hidden.are_not_in("status", &status);
    assert!(refused > 100 && taken > 5, "{refused} are refused, {taken} taken");
    running.stop().await;
    pem.hidden.are_not_in("the log", &running.log().0);
}

/// A byte order mark hides no certificate, and what is damaged is refused and not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_certificate_is_refused_or_read_and_never_passed_over() {
    let directory = bench().directory().await;
    let pem = Pem::new(&directory);
    for (name, way, reason) in [
        ("sslrootcert", "byte order mark", None),
        ("ca_cert", "byte order mark", None),
        ("client_key", "byte order mark", None),
        ("sslrootcert", "twice without a newline", Some("put a line end between the two")),
        ("ca_cert", "twice without a newline", Some("put a line end between the two")),
        ("sslrootcert", "trusted", Some("openssl x509 -in FILE")),
        ("ca_cert", "trusted", Some("openssl x509 -in FILE")),
        ("sslkey", "encrypted", Some("is encrypted, and leasehold has no passphrase")),
        ("client_key", "encrypted in the old way", Some("is encrypted, and leasehold has no passphrase")),
        ("key_file", "encrypted", Some("is encrypted, and leasehold has no passphrase")),
        ("client_ca_file", "UTF-16", Some("is encoded in UTF-16")),
        ("sslkey", "escaped newlines", Some("has the characters \\n")),
        ("client_key", "spaces for newlines", Some("line ends were lost")),
        ("ca_cert", "UTF-16", Some("is encoded in UTF-16")),
        ("sslcert", "DER", Some("is DER")),
    ] {
        let path = &pem.files[name];
        let good = std::fs::read_to_string(path).unwrap();
        let ways: BTreeMap<_, _> = mangled(&good).into_iter().collect();
        std::fs::write(path, &ways[way]).unwrap();
        let output = pem.builder(&pem.toml).switch("--offline").command("check").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match reason {
            None => assert_eq!(output.status.code(), Some(0), "{name}, {way}: {said}"),
            Some(reason) => {
                assert_eq!(output.status.code(), Some(78), "{name}, {way}: {said}");
                assert!(said.contains(reason), "{name}, {way}: {said}");
                assert!(said.contains(".toml:"), "the line is named: {said}");
            }
        }
        std::fs::write(path, &good).unwrap();
    }
}

/// Secrets that somebody may write in the place of something else.
const SECRETS: [&str; 5] = [
    "hvs.CAESIJlU9JMYEhOPYv4igBgsRohhhhh",
    "6f2d1c3b-0a1b-4c5d-8e7f-112233445566",
    "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH\n-----END PRIVATE KEY-----\n",
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg=",
    "Tr0ub4dor&3=correct horse battery staple",
];

/// The keys that take a path, with what a method needs beside them.
const METHODS: [&str; 7] = [
    "method = 'approle'\nrole_id = 'r'\nsecret_id_file = SECRET",
    "method = 'approle'\nrole_id = 'r'\nsecret_id_wrapped = true\nsecret_id_file = SECRET",
    "method = 'token-file'\ntoken_file = SECRET",
    "method = 'jwt'\nrole = 'r'\njwt_file = SECRET",
    "method = 'kubernetes'\nrole = 'r'\njwt_file = SECRET",
    "method = 'userpass'\nusername = 'u'\npassword_file = SECRET",
    "method = 'token'\nmount = SECRET",
];

const ROUTE: &str =
    "[[route]]\nvault_path = 'database/creds/app'\nupstream = 'postgresql://127.0.0.1:1/?sslmode=disable'\n";

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Files that hold a secret somewhere it does not belong.
fn misplaced(secret: &str) -> Vec<String> {
    let mut files = Vec::new();
    let value = quoted(secret);
    for method in METHODS {
        files.push(format!("[vault.auth]\n{}\n{ROUTE}", method.replace("SECRET", &value)));
    }
    let pem =
        |key: &str| Pem::toml(&|name| if name == key { secret.to_owned() } else { "/dev/null".to_owned() });
    files.extend(
        [
            "sslrootcert",
            "sslcrl",
            "sslcert",
            "sslkey",
            "ca_cert",
            "client_cert",
            "client_key",
            "cert_file",
            "key_file",
            "client_ca_file",
        ]
        .map(pem),
    );
    for line in [
        format!("state_file = {value}"),
        format!("audit_file = {value}"),
        format!("hardening = {value}"),
        format!("console = {value}"),
        format!("allow_addresses = [{value}]"),
        format!("{value} = 1"),
        format!("listen = [{value}, 5]"),
        format!("listen = {value}"),
        format!("listen_public = {value}"),
        format!("max_sigterm_delay = {value}"),
        format!("[cancel]\nunknown = {value}"),
        format!("[limits]\nlogin_wait = {value}"),
        format!("[vault]\nclient_timeout = {value}"),
        format!("vault = {value}"),
        format!("password = {value}"),
        format!("limits = {{ max_sessions = {value} }}"),
        format!("[vault]\nca_path = {value}"),
        format!("[vault]\naddr = {value}"),
        format!("[vault]\naddr = {}", quoted(&format!("http://vault.invalid/{secret}"))),
        format!("[vault]\nskip_verify = {value}"),
        format!("[vault]\n{value} = {value}"),
        format!("[{value}]\nlisten = 'x'"),
        format!("[vault.auth]\nsecret_id = {value}"),
        format!("[vault.auth]\nmethod = {value}"),
        secret.to_owned(),
        format!("listen = {secret}"),
        format!("listen = '127.0.0.1:0\n{secret}"),
    ] {
        files.push(format!("{line}\n{ROUTE}"));
    }
    files.push(format!("{ROUTE}drain = {value}\nprobe_sql = 5\n"));
    files.push(format!("{ROUTE}{value} = 5\n"));
    files.push(format!("{ROUTE}max_sessions = {value}\n"));
    files.push(format!("{ROUTE}upstream = {value}\n"));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_in_the_place_of_a_path_a_key_or_a_value_is_shown() {
    let running = leasehold()
        .vault_addr("http://127.0.0.1:1")
        .env("VAULT_TOKEN", "none")
        .flag("--log-level", "trace")
        .config_toml(ROUTE)
        .start()
        .await;
    let file = running.directory().join("leasehold.toml");
    for secret in SECRETS {
        let hidden = Hidden::of(&[secret]);
        for toml in misplaced(secret) {
            let builder =
                leasehold().config_toml(&toml).vault_addr("http://127.0.0.1:1").env("VAULT_TOKEN", "none");
            hidden.are_not_told_by(&toml, &builder).await;
            std::fs::write(&file, &toml).unwrap();
            hidden.are_not_in(&toml, &reloaded(&running).await);
        }
        hidden.are_not_in("the log", &running.log().0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_among_the_arguments_or_variables_is_shown() {
    for secret in SECRETS {
        let hidden = Hidden::of(&[secret]);
        let route = || leasehold().path("database/creds/app").upstream_uri("postgresql://127.0.0.1:1/");
        let stray = [
            route().switch(secret),
            route().switch(&format!("--{secret}")),
            route().switch(&format!("-{secret}")),
            route().switch(&format!("--vault-adr={secret}")),
            route().switch(&format!("--lazy={secret}")),
            route().flag("--max-sessions", secret),
            route().flag("--config", secret),
            route().flag("--state-file", secret),
            route().flag("--vault-ca-cert", secret),
            route().flag("--vault-ca-path", secret),
            route().flag("--vault-addr", secret),
            leasehold().upstream_uri(secret).path("database/creds/app"),
            leasehold().upstream_uri("postgresql://db/").path(secret),
        ];
        let ambient = [
            "LEASEHOLD_CONFIG",
            "LEASEHOLD_LISTEN",
            "LEASEHOLD_STATE_FILE",
            "LEASEHOLD_REQUIRE_AUTH",
            "LEASEHOLD_REQUIRE_AUHT",
            "LEASEHOLD_VAULT_CA_CERT",
            "VAULT_ADDR",
            "VAULT_CACERT",
            "VAULT_CAPATH",
            "VAULT_CACERT_BYTES",
            "VAULT_CLIENT_TIMEOUT",
            "VAULT_SKIP_VERIFY",
            "NOTIFY_SOCKET",
        ];
        let ambient = ambient.map(|name| route().env("VAULT_TOKEN", "none").env(name, secret));
        for (number, builder) in stray.into_iter().chain(ambient).enumerate() {
            hidden.are_not_told_by(&format!("case {number}"), &builder).await;
            let mut process = builder.flag("--log-level", "trace").spawn().await;
            // It ends, or it runs: what is wrong it has said by then.
            eventually(SOON, async || {
                let listens = !process.log().listening("client").is_empty();
                same(listens || process.has_ended(), true)
            })
            .await;
            hidden.are_not_in(&format!("run, case {number}"), &process.log().0);
        }
        let rotate = leasehold().command("rotate").await;
        hidden.are_not_in("rotate", &String::from_utf8_lossy(&rotate.stderr));
    }
}

/// What Vault answers to a damaged secret is in the log, and the secret is not.
#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_secret_file_is_shown_by_what_vault_makes_of_it() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { setup, .. } = &backends;
    let secret_id = std::fs::read_to_string(setup.secret_id_file()).unwrap();
    let token = "hvs.CAESIJlU9JMYEhOPYv4igBgsRohhhhh";
    let file = bench().directory().await.join("secret");
    let path = file.to_str().unwrap();
    let methods: [(&str, &[&str]); 6] = [
        (
            &secret_id,
            &["approle", "--vault-auth-role-id", &setup.role_id(), "--vault-auth-secret-id-file", path],
        ),
        (
            token,
            &[
                "approle",
                "--vault-auth-secret-id-wrapped",
                "--vault-auth-role-id",
                &setup.role_id(),
                "--vault-auth-secret-id-file",
                path,
            ],
        ),
        (token, &["token-file", "--vault-auth-token-file", path]),
        (token, &["jwt", "--vault-auth-role", "r", "--vault-auth-jwt-file", path]),
        (token, &["kubernetes", "--vault-auth-role", "r", "--vault-auth-jwt-file", path]),
        (token, &["userpass", "--vault-auth-username", "u", "--vault-auth-password-file", path]),
    ];
    for (secret, flags) in methods {
        let hidden = Hidden::of(&[secret.trim()]);
        for (way, bytes) in mangled(secret.trim()) {
            std::fs::write(&file, bytes).unwrap();
            let builder = backends.without_login().path(&setup.path).switch("--vault-auth-method");
            let builder = flags.iter().fold(builder, |builder, flag| builder.switch(flag));
            let place = format!("{way}, {flags:?}");
            hidden.are_not_told_by(&place, &builder).await;
            let process = builder.flag("--log-level", "trace").start().await;
            eventually(SOON, async || {
                let route = &process.status().await["routes"][0];
                same(route["last_error"].is_object() || route["ready"] == true, true)
            })
            .await;
            let rotated = process.command(&["rotate"]).await;
            hidden.are_not_in(&place, &String::from_utf8_lossy(&rotated.stderr));
            hidden.are_not_in(&place, &process.admin(Method::GET, "/status").await.text);
            hidden.are_not_in(&place, &process.log().0);
        }
    }
}
