//! One client's messages and their answers, by the simple and the extended protocol. Pure: what is said gathers in `out`.
//! Floor 4.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::statement::{Statement, statements};
use super::{Console, Known};
use crate::nearest::nearest;
use crate::postgres::protocol::backend::{self, Column, Format, Transaction, Value};
use crate::postgres::protocol::frontend::{Frontend, Target};

/// The state between two messages.
pub(super) struct Conversation<'a> {
    console: &'a Console,
    user: String,
    prepared: HashMap<Bytes, Option<Statement>>,
    portals: HashMap<Bytes, Portal>,
    transaction: Transaction,
    /// An error of the extended protocol: everything up to the Sync is passed over.
    skipping: bool,
    /// What the client is to be sent.
    pub(super) out: BytesMut,
}

/// A statement that is bound.
struct Portal {
    statement: Option<Statement>,
    formats: Vec<Format>,
    /// The rows that are left once it was executed.
    rest: Option<std::vec::IntoIter<Vec<Value>>>,
}

/// An ERROR for the client.
struct Refused {
    sqlstate: &'static str,
    message: String,
    hint: Option<String>,
}

/// What a statement gives.
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    tag: &'static str,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(console: &'a Console, user: String) -> Self {
        Self {
            console,
            user,
            prepared: HashMap::new(),
            portals: HashMap::new(),
            transaction: Transaction::Idle,
            skipping: false,
            out: BytesMut::new(),
        }
    }

    /// Answers one message. Terminate has none.
    pub(super) fn take(&mut self, message: Frontend) {
        if self.skipping && message != Frontend::Sync {
            return;
        }
        let outcome = match message {
            Frontend::Query(text) => {
                self.query(&text);
                return backend::ready_for_query(&mut self.out, self.transaction);
            }
            Frontend::Sync => {
                self.skipping = false;
                if self.transaction == Transaction::Idle {
                    self.portals.clear();
                }
                return backend::ready_for_query(&mut self.out, self.transaction);
            }
            Frontend::Parse { statement, text } => self.parse(statement, &text),
            Frontend::Bind { portal, statement, parameters, formats } => {
                self.bind(portal, &statement, parameters, formats)
            }
            Frontend::Describe(target) => self.describe(&target),
            Frontend::Execute { portal, most } => self.execute(&portal, most),
            Frontend::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.prepared.remove(&name)),
                    Target::Portal(name) => drop(self.portals.remove(&name)),
                }
                backend::close_complete(&mut self.out);
                Ok(())
            }
            Frontend::FunctionCall => {
                self.refuse(&Refused::other());
                return backend::ready_for_query(&mut self.out, self.transaction);
            }
            Frontend::Flush | Frontend::Copy | Frontend::Terminate => Ok(()),
        };
        if let Err(refused) = outcome {
            self.refuse(&refused);
            self.skipping = true;
        }
    }

    fn query(&mut self, text: &str) {
        let statements = statements(text, &self.user, &self.console.database);
        if statements.is_empty() {
            backend::empty_query(&mut self.out);
        }
        // Their answers are made at once, and may be long.
        if statements.len() > MOST_IN_QUERY {
            let many = Refused::new("54000", "too many statements in one query");
            return self.refuse(&many.hint(&format!("Send {MOST_IN_QUERY} at once at most.")));
        }
        for statement in statements {
            match self.run(&statement) {
                Ok(answer) => {
                    if !answer.columns.is_empty() {
                        backend::row_description(&mut self.out, &answer.columns, &[]);
                    }
                    for row in &answer.rows {
                        backend::data_row(&mut self.out, row, &[]);
                    }
                    backend::command_complete(&mut self.out, &tag(answer.tag, answer.rows.len()));
                }
                Err(refused) => return self.refuse(&refused),
            }
        }
    }

    fn parse(&mut self, name: Bytes, text: &str) -> Result<(), Refused> {
        let mut statements = statements(text, &self.user, &self.console.database);
        if statements.len() > 1 {
            let several = "cannot insert multiple commands into a prepared statement";
            return Err(
                Refused::new("42601", several).hint("Send each by itself, or all by the simple protocol.")
            );
        }
        let statement = statements.pop();
        if let Some(statement) = &statement {
            self.columns(statement)?;
        }
        if !name.is_empty() && self.prepared.contains_key(&name) {
            let exists = Refused::new("42P05", "this prepared statement exists already");
            return Err(exists.hint("Close it first, or give the new one another name."));
        }
        if self.prepared.len() >= MOST {
            return Err(Refused::new("54000", "too many prepared statements").hint(CLOSE));
        }
        self.prepared.insert(name, statement);
        backend::parse_complete(&mut self.out);
        Ok(())
    }

    fn bind(
        &mut self,
        portal: Bytes,
        statement: &Bytes,
        parameters: usize,
        formats: Vec<Format>,
    ) -> Result<(), Refused> {
        let statement = self.prepared.get(statement).ok_or_else(Refused::no_statement)?.clone();
        let columns = statement.as_ref().map_or(Ok(Vec::new()), |statement| self.columns(statement))?;
        if parameters > 0 {
            let none = Refused::new("08P01", "a statement of the console has no parameters");
            return Err(none.hint("Write the name itself behind SHOW."));
        }
        if formats.len() > 1 && formats.len() != columns.len() {
            return Err(Refused::new("08P01", "there are not as many result formats as columns"));
        }
        if self.portals.len() >= MOST {
            return Err(Refused::new("54000", "too many portals").hint(CLOSE));
        }
        self.portals.insert(portal, Portal { statement, formats, rest: None });
        backend::bind_complete(&mut self.out);
        Ok(())
    }

    fn describe(&mut self, target: &Target) -> Result<(), Refused> {
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.prepared.get(name).ok_or_else(Refused::no_statement)?;
                backend::no_parameters(&mut self.out);
                (statement, &[][..])
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(Refused::no_portal)?;
                (&portal.statement, &portal.formats[..])
            }
        };
        let columns = statement.as_ref().map_or(Ok(Vec::new()), |statement| self.columns(statement))?;
        if columns.is_empty() {
            backend::no_data(&mut self.out);
        } else {
            backend::row_description(&mut self.out, &columns, formats);
        }
        Ok(())
    }

    fn execute(&mut self, name: &Bytes, most: usize) -> Result<(), Refused> {
        let mut portal = self.portals.remove(name).ok_or_else(Refused::no_portal)?;
        let Some(statement) = portal.statement.clone() else {
            backend::empty_query(&mut self.out);
            return Ok(());
        };
        let (mut rows, command) = match portal.rest.take() {
            Some(rows) => (rows, "SHOW"),
            None => {
                let answer = self.run(&statement)?;
                (answer.rows.into_iter(), answer.tag)
            }
        };
        let most = if most == 0 { usize::MAX } else { most };
        let mut sent = 0;
        while sent < most
            && let Some(row) = rows.next()
        {
            backend::data_row(&mut self.out, &row, &portal.formats);
            sent += 1;
        }
        if sent == most && rows.len() > 0 {
            backend::portal_suspended(&mut self.out);
        } else {
            backend::command_complete(&mut self.out, &tag(command, sent));
        }
        portal.rest = Some(rows);
        self.portals.insert(name.clone(), portal);
        Ok(())
    }

    /// The columns of what a statement gives; none where it gives no rows.
    fn columns(&self, statement: &Statement) -> Result<Vec<Column>, Refused> {
        Ok(match statement {
            Statement::Show(name) => match self.console.known(name) {
                Some(Known::View(view)) => view.columns.to_vec(),
                Some(Known::Parameter(name, _)) => vec![(name, backend::Type::Text)],
                Some(Known::Help) => super::HELP.to_vec(),
                None => return Err(self.unknown(name)),
            },
            Statement::Select(column, _) => vec![*column],
            Statement::Nothing(_) | Statement::Begin | Statement::Commit | Statement::Rollback => Vec::new(),
            Statement::Other => return Err(Refused::other()),
        })
    }

    fn run(&mut self, statement: &Statement) -> Result<Answer, Refused> {
        let ends = matches!(statement, Statement::Commit | Statement::Rollback);
        if self.transaction == Transaction::Failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Refused::new("25P02", message).hint("ROLLBACK ends it."));
        }
        let columns = self.columns(statement)?;
        let (rows, tag) = match statement {
            Statement::Show(name) => (self.rows(name), "SHOW"),
            Statement::Select(_, value) => (vec![vec![value.clone()]], "SELECT"),
            Statement::Begin => (Vec::new(), self.enter(Transaction::Open, "BEGIN")),
            Statement::Commit if self.transaction == Transaction::Failed => {
                (Vec::new(), self.enter(Transaction::Idle, "ROLLBACK"))
            }
            Statement::Commit => (Vec::new(), self.enter(Transaction::Idle, "COMMIT")),
            Statement::Rollback => (Vec::new(), self.enter(Transaction::Idle, "ROLLBACK")),
            Statement::Nothing(tag) => (Vec::new(), *tag),
            Statement::Other => return Err(Refused::other()),
        };
        Ok(Answer { columns, rows, tag })
    }

    fn rows(&self, name: &str) -> Vec<Vec<Value>> {
        match self.console.known(name) {
            Some(Known::View(view)) => (view.rows)(),
            Some(Known::Parameter(_, value)) => vec![vec![Value::Text(value.to_owned())]],
            Some(Known::Help) => self.console.help(),
            None => Vec::new(),
        }
    }

    fn enter(&mut self, transaction: Transaction, tag: &'static str) -> &'static str {
        self.transaction = transaction;
        tag
    }

    fn unknown(&self, name: &str) -> Refused {
        let meant = nearest(name, self.console.names());
        Refused {
            sqlstate: "42704",
            message: format!("the console does not show \"{name}\""),
            hint: Some(match meant {
                Some(meant) => format!("Did you mean SHOW {}?", meant.to_uppercase()),
                None => LISTS.to_owned(),
            }),
        }
    }

    fn refuse(&mut self, refused: &Refused) {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        backend::error(&mut self.out, refused.sqlstate, &refused.message, refused.hint.as_deref());
    }
}

impl Refused {
    fn new(sqlstate: &'static str, message: &str) -> Self {
        Self { sqlstate, message: message.to_owned(), hint: None }
    }

    /// What a person can do.
    fn hint(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }

    fn other() -> Self {
        let message = "this is leasehold's console, which has no tables and changes nothing: it answers SHOW";
        Self::new("0A000", message).hint(LISTS)
    }

    fn no_statement() -> Self {
        Self::new("26000", "this prepared statement does not exist")
    }

    fn no_portal() -> Self {
        Self::new("34000", "this portal does not exist")
    }
}

/// The command tag; that of SELECT has the number of rows.
fn tag(command: &str, rows: usize) -> String {
    if command == "SELECT" { format!("SELECT {rows}") } else { command.to_owned() }
}

const LISTS: &str = "SHOW HELP lists what it shows.";
const CLOSE: &str = "Close those that are needed no more, or connect again.";
/// How many statements a Query may have.
const MOST_IN_QUERY: usize = 16;
/// How many prepared statements, and portals, a client may have.
const MOST: usize = 64;
