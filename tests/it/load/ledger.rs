//! What clients wrote, beside what the database has.
//!
//! Each write is a line with a number that is never used again, and one more on the client's counter, in one
//! transaction. What was acknowledged must be there, what is known not to have run must not, nothing may be there twice.

use crate::harness::Database;

/// The tables.
pub(crate) struct Ledger;

impl Ledger {
    pub(crate) async fn create(db: &Database, clients: i32) {
        let owner = db.owner();
        // Without a key: what is there twice is to be seen.
        let tables = format!(
            "CREATE TABLE ledger (client int, seq bigint);
             CREATE TABLE counter (client int PRIMARY KEY, n bigint);
             INSERT INTO counter SELECT client, 0 FROM generate_series(0, {clients} - 1) client;
             ALTER TABLE ledger OWNER TO {owner}; ALTER TABLE counter OWNER TO {owner}"
        );
        db.admin.batch_execute(&tables).await.unwrap();
    }

    /// One write in one message.
    pub(crate) fn write(client: i32, seq: i64) -> String {
        format!("BEGIN; {}; COMMIT", Self::steps(client, seq))
    }

    /// The same without its BEGIN and COMMIT.
    pub(crate) fn steps(client: i32, seq: i64) -> String {
        format!(
            "INSERT INTO ledger VALUES ({client}, {seq}); UPDATE counter SET n = n + 1 WHERE client = {client}"
        )
    }

    /// The same as one statement with two parameters.
    pub(crate) const STATEMENT: &str = "WITH line AS (INSERT INTO ledger VALUES ($1, $2))
                                        UPDATE counter SET n = n + 1 WHERE client = $1";

    /// Panics unless the database agrees with the books; how many lines it has.
    pub(crate) async fn agrees(db: &Database, books: impl IntoIterator<Item = &Book>) -> u64 {
        db.admin.batch_execute(BOOKS).await.unwrap();
        for book in books {
            let kept = format!("INSERT INTO book VALUES ({}, {})", book.client, book.tried);
            db.admin.batch_execute(&kept).await.unwrap();
            for some in book.doubts.chunks(1000) {
                let rows: Vec<_> =
                    some.iter().map(|(seq, ran)| format!("({}, {seq}, {ran})", book.client)).collect();
                let insert = format!("INSERT INTO doubt VALUES {}", rows.join(", "));
                db.admin.batch_execute(&insert).await.unwrap();
            }
        }
        for (what, sql) in [
            ("acknowledged and lost", LOST),
            ("there twice", TWICE),
            ("there though they did not run", RAN),
            ("there though nobody wrote them", FOREIGN),
            ("counters that are not what was written", MISCOUNTED),
        ] {
            assert_eq!(db.admin.value(sql).await, "0", "{what}");
        }
        db.admin.value("SELECT count(*) FROM ledger").await.parse().unwrap()
    }
}

/// What one client tried to write.
pub(crate) struct Book {
    pub(crate) client: i32,
    tried: i64,
    /// Not acknowledged, and whether they may have run.
    doubts: Vec<(i64, bool)>,
    under_way: Vec<i64>,
    may_have_run: bool,
    pub(crate) acknowledged: u64,
}

impl Book {
    pub(crate) fn new(client: i32) -> Self {
        Self {
            client,
            tried: 0,
            doubts: Vec::new(),
            under_way: Vec::new(),
            may_have_run: false,
            acknowledged: 0,
        }
    }

    /// The number of a write in one message, which is sent now.
    pub(crate) fn send(&mut self) -> i64 {
        let seq = self.begin();
        self.may_have_run = true;
        seq
    }

    /// The number of a write whose COMMIT has not been sent.
    pub(crate) fn begin(&mut self) -> i64 {
        self.tried += 1;
        self.under_way.push(self.tried);
        self.tried
    }

    /// The COMMIT of what is under way is sent now.
    pub(crate) fn commit(&mut self) {
        self.may_have_run = true;
    }

    /// This write was acknowledged.
    pub(crate) fn done(&mut self, seq: i64) {
        self.under_way.retain(|other| *other != seq);
        self.acknowledged += 1;
        if self.under_way.is_empty() {
            self.may_have_run = false;
        }
    }

    /// All that was under way was acknowledged.
    pub(crate) fn all_done(&mut self) {
        self.acknowledged += self.under_way.len() as u64;
        self.under_way.clear();
        self.may_have_run = false;
    }

    /// The session is lost. `not_run`: it was said that what was sent last did not run.
    pub(crate) fn lost(&mut self, not_run: bool) {
        let ran = self.may_have_run && !not_run;
        self.doubts.extend(self.under_way.drain(..).map(|seq| (seq, ran)));
        self.may_have_run = false;
    }

    /// How many are known not to have run, and of how many nothing is known.
    pub(crate) fn doubts(&self) -> (usize, usize) {
        let unknown = self.doubts.iter().filter(|(_, ran)| *ran).count();
        (self.doubts.len() - unknown, unknown)
    }
}

const BOOKS: &str = "DROP TABLE IF EXISTS book, doubt;
                     CREATE TEMP TABLE book (client int, tried bigint);
                     CREATE TEMP TABLE doubt (client int, seq bigint, may_have_run boolean)";
const LOST: &str = "SELECT count(*) FROM (SELECT client, generate_series(1, tried) FROM book
                      EXCEPT SELECT client, seq FROM doubt EXCEPT SELECT client, seq FROM ledger) lost";
const TWICE: &str =
    "SELECT count(*) FROM (SELECT FROM ledger GROUP BY client, seq HAVING count(*) > 1) twice";
const RAN: &str = "SELECT coalesce(string_agg(client || ':' || seq, ' '), '0') FROM ledger
                     JOIN doubt USING (client, seq) WHERE NOT may_have_run";
const FOREIGN: &str =
    "SELECT count(*) FROM ledger LEFT JOIN book USING (client) WHERE seq > coalesce(tried, 0)";
const MISCOUNTED: &str = "SELECT count(*) FROM counter
                            LEFT JOIN (SELECT client, count(*) lines FROM ledger GROUP BY client) l USING (client)
                           WHERE n <> coalesce(lines, 0)";
